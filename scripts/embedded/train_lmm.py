"""Train the embedded LMM from photographs and captions alone; no mask or box is read.

    python scripts/embedded/train_lmm.py --data ../shared/data --out checkpoints/embedded/lmm

Three phases, one after the other:
1. language: the decoder learns the captions of photographs that are not here;
2. words: the tower learns, end to end, which cells show which word of the captions (word loss);
3. captions: everything together, with the captions of the photograph packed behind one image prefix.

Losses, all from captions only: next token; **word loss** (the best cells of a photograph must score the words of its
captions, cosine with the words' own embeddings); **attention loss** (the attention that predicts a word, averaged over
layers and heads, must lie where the word scores). Half of the pictures are mosaics of four photographs: a caption's
words must then be found in its own quarter, which teaches where without ever being told.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from caption_data import (
    WORD,
    Photo,
    augmented,
    clean_caption,
    concept_of,
    find_concepts,
    load_caption_text,
    load_photos,
    mirrored,
    word_target,
)
from imagenet_mobilenet import coral_tflite, load_imagenet
from split import default_data_dir
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    CLIPImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from aas.lmms.embedded import STRIDE, MobileTowerConfig

SIDE = 384  # pixels of the tower's input
GRID = SIDE // STRIDE
N_CELLS = GRID * GRID
QUESTIONS = (
    "Describe the image.", "Describe the image in detail.", "Describe the image.", "Describe this picture.",
    "What is in the image?", "What do you see?", "What is in this photo?", "What does the image show?",
    "Write a caption.", "Describe the image briefly.",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ 'USER: ' if message['role'] == 'user' else ' ASSISTANT: ' }}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
PAD, BOS, EOS, IMAGE = "<pad>", "<s>", "</s>", "<image>"
IGNORE = -100


# ---- the model and its processor ------------------------------------------------------------------


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned on the captions and the prompt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [f"USER: \n{question} ASSISTANT:" for question in QUESTIONS] * 100
    tokenizer.train_from_iterator([f" {text}" for text in texts] + prompts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens={"image_token": IMAGE},
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def build_processor(tokenizer: PreTrainedTokenizerFast) -> LlavaProcessor:
    """Stretches the photograph to the square input, scales it to [-1, 1]."""
    image_processor = CLIPImageProcessorPil(
        size={"height": SIDE, "width": SIDE},
        do_center_crop=False,
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> LlavaForConditionalGeneration:
    text_config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=int(width * 8 / 3) // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=MobileTowerConfig(image_size=SIDE),
        text_config=text_config,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=N_CELLS,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.update(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


@torch.no_grad()
def standardize_cells(model: LlavaForConditionalGeneration, photos: list[Photo]) -> None:
    tower = model.model.vision_tower
    pixels = to_pixels(np.stack([augmented(p.pixels, SIDE, np.random.default_rng(0))[0] for p in photos]))
    cells = tower(pixels).last_hidden_state[..., : len(tower.scale)].flatten(0, 1)
    tower.scale.copy_(1 / cells.std(0).clamp_min(1e-3))
    tower.shift.copy_(-cells.mean(0) * tower.scale)
    tower.position.normal_(std=0.5)


def to_pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, S, S, 3] -> float [B, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- attention that is also read ------------------------------------------------------------------


class RecordedAttention:
    """Softmax attention that keeps, with gradient, each layer's head-mean over the image columns."""

    def __init__(self) -> None:
        self.columns = slice(0, 0)
        self.rows = slice(0, 0)
        self.maps: list[Tensor] = []
        self.dropout = 0.0

    def __call__(self, module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
        scores = query @ key.transpose(-1, -2) * scaling
        weights = (scores.float() + attention_mask).softmax(-1)
        if self.rows.stop:
            self.maps.append(weights[:, :, self.rows, self.columns].mean(1))
        weights = F.dropout(weights.to(value.dtype), self.dropout, module.training)
        return (weights @ value).transpose(1, 2).contiguous(), None


RECORDED = RecordedAttention()
AttentionInterface.register("aas_recorded", RECORDED)


def add_dropout(model: LlavaForConditionalGeneration, p: float, p_cells: float) -> None:
    """Dropout on the residual branches and the tower's cells (Llama has none of its own); off outside training."""

    def branch(module: nn.Module, args: tuple, output):
        if isinstance(output, tuple):
            return (F.dropout(output[0], p, module.training), *output[1:])
        return F.dropout(output, p, module.training)

    for layer in model.model.language_model.layers:
        layer.self_attn.register_forward_hook(branch)
        layer.mlp.register_forward_hook(branch)
    model.model.multi_modal_projector.register_forward_pre_hook(
        lambda module, args: (F.dropout(args[0], p_cells, module.training),)
    )


# ---- batches ---------------------------------------------------------------------------------------


class Words:
    """The concepts (content words) that the word and attention losses know."""

    def __init__(self, concepts: list[str], tokenizer: PreTrainedTokenizerFast):
        self.concepts = concepts
        self.index = {word: i for i, word in enumerate(concepts)}
        self.tokenizer = tokenizer
        ids = [tokenizer.encode(f" {word}", add_special_tokens=False) for word in concepts]
        self.token_ids = torch.tensor([t for word in ids for t in word])
        self.offsets = torch.tensor([0, *np.cumsum([len(word) for word in ids])[:-1]])

    def embeddings(self, table: Tensor) -> Tensor:
        """Mean of a word's token embeddings, [n_concepts, width]."""
        return F.embedding_bag(self.token_ids, table, self.offsets, mode="mean")

    def encode(self, caption: str, lower: bool = False) -> tuple[list[int], list[int]]:
        """Token ids of ` caption</s>`, and for each token the concept of its word or -1."""
        text = f" {caption}"
        if lower:
            text = text.lower().rstrip(".")
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        concept_at = np.full(len(text), -1)
        for match in WORD.finditer(text):
            concept_at[match.start() : match.end()] = self.index.get(concept_of(match.group()), -1)
        concepts = [int(concept_at[end - 1]) for _, end in encoding["offset_mapping"]]
        return encoding["input_ids"] + [self.tokenizer.eos_token_id], concepts + [-1]


@dataclass
class Batch:
    """One packed batch: a prompt with the image, then several answers that do not see each other.

    `ids`, `labels` (next token or IGNORE), `concepts` (of the next token, or -1), `quarter` (0-3, or -1 for the whole
    picture), `segment` (0 prompt, 1.. answers, -1 padding), `position`: int64 [B, T], where T counts text only and
    the image's cells stand before text position `image_at`. `targets` float [B, 4, n_concepts]; the first
    `n_mosaics` pictures are mosaics, the others have one target, repeated.
    """

    pixels: Tensor
    ids: Tensor
    labels: Tensor
    concepts: Tensor
    quarter: Tensor
    segment: Tensor
    position: Tensor
    image_at: int
    targets: Tensor
    n_mosaics: int


def prompt_ids(tokenizer: PreTrainedTokenizerFast, question: str) -> tuple[list[int], list[int]]:
    before = tokenizer.encode("USER: ", add_special_tokens=False)
    after = tokenizer.encode(f"\n{question} ASSISTANT:", add_special_tokens=False)
    return [tokenizer.bos_token_id, *before], after


def pack(answers: list[tuple[str, int]], words: Words, question: str, lower: bool, with_image: bool) -> dict:
    """Text rows of one picture; `answers` are (caption, quarter)."""
    before, after = prompt_ids(words.tokenizer, question)
    prompt = before + after
    n_prompt = len(prompt) + (N_CELLS if with_image else 0)
    after_at = len(before) + (N_CELLS if with_image else 0)
    row = {
        "ids": list(prompt),
        "labels": [IGNORE] * len(prompt),
        "concepts": [-1] * len(prompt),
        "quarter": [-1] * len(prompt),
        "segment": [0] * len(prompt),
        "position": [*range(len(before)), *range(after_at, n_prompt)],
    }
    for k, (caption, quarter) in enumerate(answers, start=1):
        ids, concepts = words.encode(caption, lower)
        # Every answer brings its own copy of the prompt's last token, whose row predicts the answer's first.
        inputs = [prompt[-1], *ids[:-1]]
        row["ids"] += inputs
        row["labels"] += ids
        row["concepts"] += concepts
        row["quarter"] += [quarter] * len(ids)
        row["segment"] += [k] * len(ids)
        row["position"] += range(n_prompt - 1, n_prompt - 1 + len(ids))
    # the shared prompt therefore ends one token earlier
    drop = len(prompt) - 1
    return {key: values[:drop] + values[drop + 1 :] for key, values in row.items()}


def collate(rows: list[dict], **rest) -> Batch:
    length = max(len(row["ids"]) for row in rows)
    fill = {"ids": 0, "labels": IGNORE, "concepts": -1, "quarter": -1, "segment": -1, "position": 0}
    tensors = {
        key: torch.tensor([row[key] + [value] * (length - len(row[key])) for row in rows])
        for key, value in fill.items()
    }
    return Batch(**tensors, **rest)


class PhotoBatches:
    """Endless batches of augmented photographs: `n_mosaics` mosaics of four and `n_single` single ones."""

    def __init__(self, photos: list[Photo], words: Words, n_mosaics: int, n_single: int, seed: int):
        self.words, self.n_mosaics, self.n_single = words, n_mosaics, n_single
        self.rng = np.random.default_rng(seed)
        self.photos = photos
        self.targets = np.stack([word_target(photo, words.concepts) for photo in photos])
        self.captioned = [i for i, photo in enumerate(photos) if photo.captions]
        self.queues: dict[bool, list[int]] = {True: [], False: []}
        self.image_at = len(prompt_ids(words.tokenizer, "")[0])

    def _next(self, captioned: bool) -> int:
        if not self.queues[captioned]:
            pool = self.captioned if captioned else range(len(self.photos))
            self.queues[captioned] = self.rng.permutation(pool).tolist()
        return self.queues[captioned].pop()

    def _captions(self, photo: Photo, flipped: bool, n: int) -> list[str]:
        chosen = self.rng.permutation(len(photo.captions))[:n]
        return [mirrored(photo.captions[i]) if flipped else photo.captions[i] for i in chosen]

    def _mosaic(self) -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
        picture = np.empty((SIDE, SIDE, 3), np.uint8)
        half, answers, targets = SIDE // 2, [], []
        for quarter in range(4):
            i = self._next(captioned=False)
            y, x = divmod(quarter, 2)
            pixels, flipped = augmented(self.photos[i].pixels, half, self.rng)
            picture[y * half : (y + 1) * half, x * half : (x + 1) * half] = pixels
            answers += [(caption, quarter) for caption in self._captions(self.photos[i], flipped, 1)]
            targets.append(self.targets[i])
        return picture, answers, np.stack(targets)

    def _single(self) -> tuple[np.ndarray, list[tuple[str, int]], np.ndarray]:
        i = self._next(captioned=True)
        picture, flipped = augmented(self.photos[i].pixels, SIDE, self.rng)
        answers = [(caption, -1) for caption in self._captions(self.photos[i], flipped, 5)]
        return picture, answers, np.stack([self.targets[i]] * 4)

    def __call__(self) -> Batch:
        samples = [self._mosaic() for _ in range(self.n_mosaics)] + [self._single() for _ in range(self.n_single)]
        question = str(self.rng.choice(QUESTIONS))
        lower = bool(self.rng.random() < 0.15)
        return collate(
            [pack(answers, self.words, question, lower, with_image=True) for _, answers, _ in samples],
            pixels=to_pixels(np.stack([picture for picture, _, _ in samples])),
            image_at=self.image_at,
            targets=torch.from_numpy(np.stack([targets for _, _, targets in samples])),
            n_mosaics=self.n_mosaics,
        )


# ---- losses ----------------------------------------------------------------------------------------


def cells_of(model: LlavaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Projected cells [B, N_CELLS, width]."""
    return torch.stack(list(model.model.get_image_features(pixels).pooler_output))


def lens_of(cells: Tensor, words: Words, table: Tensor) -> Tensor:
    """Cosine of each cell with each word, float32 [B, N_CELLS, n_concepts]."""
    with torch.autocast("cpu", enabled=False):
        return F.normalize(cells.float(), dim=-1) @ F.normalize(words.embeddings(table), dim=-1).T


def by_quarter(x: Tensor) -> Tensor:
    """[B, N_CELLS, C] -> [B, 4, N_CELLS / 4, C]."""
    half = GRID // 2
    return x.unflatten(1, (2, half, 2, half)).permute(0, 1, 3, 2, 4, 5).reshape(len(x), 4, half * half, -1)


def word_loss(lens: Tensor, targets: Tensor, n_mosaics: int, scale: float) -> Tensor:
    """Cross-entropy between the words' scores (mean of the best cosines) and their share of the captions.

    The best 6 of a quarter's 36 cells, or the best 14 of a whole picture's 144.
    """
    quarters = by_quarter(lens[:n_mosaics]).topk(6, dim=2).values.mean(2)
    whole = lens[n_mosaics:].topk(14, dim=1).values.mean(1)
    scores = torch.cat([quarters.flatten(0, 1), whole]) * scale
    target = torch.cat([targets[:n_mosaics].flatten(0, 1), targets[n_mosaics:, 0]])
    return -(target * scores.log_softmax(-1)).sum(-1).mean()


def quarter_mask() -> Tensor:
    """bool [5, N_CELLS]: the cells of each quarter; the last row is every cell."""
    cell = torch.arange(N_CELLS)
    quarter = (cell // GRID >= GRID // 2) * 2 + (cell % GRID >= GRID // 2)
    return torch.cat([quarter == torch.arange(4)[:, None], torch.ones(1, N_CELLS, dtype=torch.bool)])


def attention_loss(maps: Tensor, lens: Tensor, batch: Batch, sharpness: float) -> Tensor:
    """Cross-entropy of the attention that predicts a word against where the word scores.

    `maps` [B, T, N_CELLS], attention over all keys: what goes to text is lost, so that the image is looked at.
    """
    b, t = torch.nonzero(batch.concepts >= 0, as_tuple=True)
    score = lens.detach()[b, :, batch.concepts[b, t]]
    inside = quarter_mask()[batch.quarter[b, t]]
    score = (score - score.mean(1, keepdim=True)) / (score.std(1, keepdim=True) + 1e-6)
    target = score.mul(sharpness).masked_fill(~inside, -torch.inf).softmax(-1)
    return -(target * maps[b, t].clamp_min(1e-8).log()).sum(-1).mean()


def attention_mask(segment: Tensor, image_at: int, n_image: int) -> Tensor:
    """Additive float [B, 1, S, S]: causal, answers see the prompt, the image and themselves."""
    before, after = segment[:, :image_at], segment[:, image_at:]
    full = torch.cat([before, torch.zeros(len(segment), n_image, dtype=segment.dtype), after], dim=1)
    length = full.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = causal & ((full[:, None, :] == 0) | (full[:, None, :] == full[:, :, None]))
    return torch.zeros(visible.shape).masked_fill(~visible, -1e9)[:, None]


def text_forward(
    model: LlavaForConditionalGeneration, batch: Batch, cells: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Hidden states of the text rows [B, T, width], and the attention maps [B, T, N_CELLS] where there is an image."""
    language = model.model.language_model
    embeds = language.embed_tokens(batch.ids)
    at, n_image = batch.image_at, 0 if cells is None else cells.shape[1]
    position = batch.position
    if cells is not None:
        embeds = torch.cat([embeds[:, :at], cells.to(embeds.dtype), embeds[:, at:]], dim=1)
        image_position = torch.arange(at, at + n_image).expand(len(embeds), -1)
        position = torch.cat([position[:, :at], image_position, position[:, at:]], dim=1)
    RECORDED.maps = []
    RECORDED.columns = slice(at, at + n_image)
    RECORDED.rows = slice(at + n_image, None) if n_image == 0 else slice(at + n_image, embeds.shape[1])
    mask = attention_mask(batch.segment, at, n_image)
    hidden = language(
        inputs_embeds=embeds, attention_mask=mask, position_ids=position, use_cache=False
    ).last_hidden_state
    hidden = torch.cat([hidden[:, :at], hidden[:, at + n_image :]], dim=1)
    if not n_image:
        return hidden, None
    maps = torch.stack(RECORDED.maps).float().mean(0)
    return hidden, F.pad(maps, (0, 0, at, 0))


def token_loss(model: LlavaForConditionalGeneration, hidden: Tensor, batch: Batch, smoothing: float) -> Tensor:
    keep = batch.labels != IGNORE
    return F.cross_entropy(model.lm_head(hidden[keep]).float(), batch.labels[keep], label_smoothing=smoothing)


# ---- figures while training -----------------------------------------------------------------------


class Probe:
    """Held-out loss and pointing of the photographs kept for choosing. Masks are read here, for choosing only."""

    def __init__(self, photos: list[Photo], words: Words, data_dir: Path):
        from pycocotools.coco import COCO

        coco = COCO(data_dir / "coco/annotations/instances_subset_val2017.json")
        names = {c["id"]: c["name"] for c in coco.dataset["categories"]}
        self.photos = photos
        self.batches, self.masks = [], []
        image_at = len(prompt_ids(words.tokenizer, "")[0])
        for photo in photos:
            masks: dict[str, np.ndarray] = {}
            for annotation in coco.imgToAnns[photo.image_id]:
                name = concept_of(names[annotation["category_id"]].split()[-1])
                mask = coco.annToMask(annotation).astype(bool)
                masks[name] = masks.get(name, False) | mask
            for person in ("man", "woman", "boy", "girl", "child", "player", "guy", "lady", "rider", "skier", "surfer"):
                if "person" in masks:
                    masks[person] = masks["person"]
            row = pack([(c, -1) for c in photo.captions], words, QUESTIONS[0], False, with_image=True)
            pixels = to_pixels(np.stack([_resized(photo.pixels)]))
            self.batches.append(
                collate([row], pixels=pixels, image_at=image_at, targets=torch.zeros(1, 4, 1), n_mosaics=0)
            )
            self.masks.append({words.index[k]: v for k, v in masks.items() if k in words.index})
        self.words = words

    @torch.no_grad()
    def __call__(self, model: LlavaForConditionalGeneration, language: bool = True) -> dict[str, float]:
        model.eval()
        table = model.get_input_embeddings().weight
        hits: dict[str, list[bool]] = {"lens": [], "attention": [], "minus_mean": [], "centre": []}
        losses, small = [], []
        for batch, masks in zip(self.batches, self.masks, strict=True):
            cells = cells_of(model, batch.pixels)
            lens = lens_of(cells, self.words, table)[0]
            maps = residual = None
            if language:
                hidden, all_maps = text_forward(model, batch, cells)
                assert all_maps is not None
                losses.append(token_loss(model, hidden, batch, 0).item())
                maps = all_maps[0]
                residual = maps.clone()
                for k in range(1, int(batch.segment.max()) + 1):
                    rows = batch.segment[0] == k
                    residual[rows] -= maps[rows].mean(0)
            seen = set()
            for t, concept in enumerate(batch.concepts[0].tolist()):
                if concept not in masks or (batch.segment[0, t].item(), concept) in seen:
                    continue
                seen.add((batch.segment[0, t].item(), concept))
                mask = masks[concept]
                hits["lens"].append(_hit(lens[:, concept], mask))
                hits["centre"].append(bool(mask[mask.shape[0] // 2, mask.shape[1] // 2]))
                small.append(mask.mean() < 0.3)
                if maps is not None and residual is not None:
                    hits["attention"].append(_hit(maps[t], mask))
                    hits["minus_mean"].append(_hit(residual[t], mask))
        model.train()
        figures = {name: float(np.mean(values)) for name, values in hits.items() if values}
        figures |= {f"{n}_small": float(np.mean(np.array(v)[small])) for n, v in hits.items() if v}
        return {"n": len(small), "loss": float(np.mean(losses or [0])), **figures}


def _resized(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def _hit(cell_scores: Tensor, mask: np.ndarray) -> bool:
    y, x = divmod(int(cell_scores.argmax()), GRID)
    height, width = mask.shape
    return bool(mask[int((y + 0.5) / GRID * height), int((x + 0.5) / GRID * width)])


# ---- training --------------------------------------------------------------------------------------


class Average:
    """Exponential moving average of the weights; what is evaluated and kept."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.n = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.n += 1
        rate = 1 - min(self.decay, self.n / (self.n + 10))
        for name, parameter in model.named_parameters():
            self.weights[name].lerp_(parameter, rate)

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            kept = parameter.clone()
            parameter.copy_(self.weights[name])
            self.weights[name] = kept


def optimizer_for(model: LlavaForConditionalGeneration, lr: float, tower_lr: float) -> torch.optim.AdamW:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(("backbone" in name, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": ps, "lr": tower_lr if backbone else lr, "weight_decay": 0.05 if matrix else 0.0}
            for (backbone, matrix), ps in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def cosine(step: int, n_steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


class Run:
    """The state that the phases share."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.args = args
        self.started = time.time()
        self.train_photos, choose = load_photos(args.data)
        self.texts = load_caption_text(args.data)
        own = [caption for photo in self.train_photos for caption in photo.captions]
        self.tokenizer = train_tokenizer(self.texts + own, args.vocab)
        self.own = own
        self.model = build_model(self.tokenizer, args.width, args.layers)
        load_imagenet(self.model.model.vision_tower.backbone, coral_tflite(args.data))
        self.model.model.vision_tower.to(memory_format=torch.channels_last)
        self.model.set_attn_implementation({"text_config": "aas_recorded"})
        standardize_cells(self.model, self.train_photos[:64])
        add_dropout(self.model, args.dropout, args.cell_dropout)
        self.words = Words(find_concepts(self.train_photos), self.tokenizer)
        self.probe = Probe(choose, self.words, args.data)
        self.log: list[dict] = []
        print(f"{len(self.train_photos)} photographs, {len(own)} captions, {len(self.texts)} texts, "
              f"{len(self.words.concepts)} words, {sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M", flush=True)  # fmt: skip

    def report(self, phase: str, step: int, **figures: float) -> None:
        entry = {"phase": phase, "step": step, "seconds": round(time.time() - self.started), **figures}
        self.log.append(entry)
        print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in entry.items()), flush=True)

    def loop(
        self, phase: str, n_steps: int, lr: float, tower_lr: float, losses, every: int, decay: float = 0.998
    ) -> None:
        """`losses()` -> {name: weighted loss}; evaluates the averaged weights every so many steps and at the end."""
        model = self.model.train()
        optimizer = optimizer_for(model, lr, tower_lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, n_steps, min(100, n_steps // 10)))
        average = Average(model, decay)
        running: dict[str, float] = {}
        for step in range(1, n_steps + 1):
            with torch.autocast("cpu", torch.bfloat16):
                parts = losses(step / n_steps)
            optimizer.zero_grad(set_to_none=True)
            sum(parts.values()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            average.update(model)
            for name, loss in parts.items():
                running[name] = 0.98 * running.get(name, loss.item()) + 0.02 * loss.item()
            if step % every == 0 or step == n_steps:
                average.swap(model)
                figures = {} if phase == "language" else self.probe(model, language=phase == "captions")
                self.report(phase, step, **running, **figures)
                if phase == "captions":
                    self.save(self.args.work / f"step_{step}")
                if step < n_steps:
                    average.swap(model)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        build_processor(self.tokenizer).save_pretrained(folder)
        (folder / "training.json").write_text(json.dumps(self.log, indent=1))

    # -- phases --

    def language(self, n_steps: int) -> None:
        rng = np.random.default_rng(self.args.seed)
        texts = self.texts + self.own
        queue: list[int] = []

        def losses(progress: float) -> dict[str, Tensor]:
            nonlocal queue
            rows = []
            for _ in range(24):
                if len(queue) < 8:
                    queue = rng.permutation(len(texts)).tolist()
                answers = [(texts[queue.pop()], -1) for _ in range(8)]
                rows.append(pack(answers, self.words, str(rng.choice(QUESTIONS)), rng.random() < 0.15, False))
            batch = collate(rows, pixels=None, image_at=0, targets=None, n_mosaics=0)
            hidden, _ = text_forward(self.model, batch, None)
            return {"text": token_loss(self.model, hidden, batch, 0.05)}

        self.loop("language", n_steps, 1.5e-3, 0.0, losses, every=100)

    def words_phase(self, n_steps: int) -> None:
        batches = PhotoBatches(self.train_photos, self.words, 8, 8, self.args.seed + 1)

        def losses(progress: float) -> dict[str, Tensor]:
            batch = batches()
            lens = lens_of(cells_of(self.model, batch.pixels), self.words, self.model.get_input_embeddings().weight)
            return {"word": word_loss(lens, batch.targets, batch.n_mosaics, self.args.scale)}

        self.loop("words", n_steps, 6e-4, 2e-4, losses, every=200)

    def captions(self, n_steps: int) -> None:
        args = self.args
        batches = PhotoBatches(self.train_photos, self.words, args.mosaics, args.singles, args.seed + 2)

        def losses(progress: float) -> dict[str, Tensor]:
            batch = batches()
            cells = cells_of(self.model, batch.pixels)
            lens = lens_of(cells, self.words, self.model.get_input_embeddings().weight)
            hidden, maps = text_forward(self.model, batch, cells)
            assert maps is not None
            return {
                "token": token_loss(self.model, hidden, batch, 0.05),
                "word": args.word_weight * word_loss(lens, batch.targets, batch.n_mosaics, args.scale),
                "pointing": args.attention_weight * attention_loss(maps, lens, batch, args.sharpness),
            }

        self.loop("captions", n_steps, args.lr, args.tower_lr, losses, every=args.every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--out", type=Path, default=Path("checkpoints/embedded/lmm"))
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate checkpoints")
    parser.add_argument("--resume-words", type=Path, help="state after the first two phases, to skip them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=4000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--cell-dropout", type=float, default=0.25)
    parser.add_argument("--language-steps", type=int, default=400)
    parser.add_argument("--words-steps", type=int, default=700)
    parser.add_argument("--captions-steps", type=int, default=1300)
    parser.add_argument("--mosaics", type=int, default=6)
    parser.add_argument("--singles", type=int, default=10)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--tower-lr", type=float, default=1e-4)
    parser.add_argument("--scale", type=float, default=16.0, help="inverse temperature of the word loss")
    parser.add_argument("--sharpness", type=float, default=2.0, help="of the attention loss's target")
    parser.add_argument("--word-weight", type=float, default=0.5)
    parser.add_argument("--attention-weight", type=float, default=0.5)
    parser.add_argument("--every", type=int, default=150)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    run = Run(args)
    if args.resume_words:
        run.model.load_state_dict(torch.load(args.resume_words, weights_only=True))
    else:
        run.language(args.language_steps)
        run.words_phase(args.words_steps)
        torch.save(run.model.state_dict(), args.work / "after_words.pt")
    run.captions(args.captions_steps)


if __name__ == "__main__":
    main()
