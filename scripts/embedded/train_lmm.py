"""Train the embedded LMM from photographs and captions; no mask or box is read.

    python scripts/embedded/parts.py --out work/parts
    python scripts/embedded/train_lmm.py words --work work/lmm --parts work/parts

and the same with `language`, `captions`, `own` and `ship` (checkpoints/embedded/README.md has the options):

`words`: the tower learns, end to end, which cells show which word of the captions (word loss). Half of the pictures
are mosaics of four photographs: a caption's words must then be found in its own quarter, which teaches where without
ever being told. `language`: the decoder, which has lost layers, learns to write captions and short answers again.
`captions`: adapters of the decoder and the projector learn to tell what is seen; the attention learns to lie where the
word scores. `own`: the same on, with the model's own answers beside the captions. `ship`: the folder in 8 bits.

`captions --control NAME`: a control, by next-token loss alone: `eyes` on ImageNet's tower, so that nothing was ever
told which cell shows what; `attention` on tower and projector of the words phase, so that only attention is emergent.
"""

import argparse
import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import spacy
import torch
from caption_data import caption_texts, find_concepts, load_photos, question_texts, with_questions
from lmm_batches import Batch, PhotoBatches, TextBatches, Told, Words
from lmm_decoder import small_decoder
from lmm_losses import attention_loss, cells_of, cosines, smoothed, text_forward, token_loss, word_loss
from lmm_model import (
    AFTER,
    BEFORE,
    IMAGE,
    QUESTIONS,
    SIDE,
    add_cell_dropout,
    build_model,
    build_processor,
    standardize_cells,
    to_pixels,
)
from lmm_own_answers import OwnBatches, own_answers
from lmm_probe import Probe
from parts import load_backbone
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file, save_file
from split import default_data_dir
from torch import Tensor, nn
from training import freeze_first_blocks, run_phase
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from aas import int8
from aas.lmms.embedded import MobileTower

STEPS = {"words": 1200, "language": 300, "captions": 1000, "own": 300}


class Run:
    """The model, its words and the photographs; what the phases share."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.args = args
        self.photos, choose = load_photos(args.data)
        prompts = [BEFORE + AFTER.format(question) for question in QUESTIONS]
        texts = caption_texts(args.data) + question_texts(args.data) + prompts
        layers = None if args.layers is None else [int(i) for i in args.layers.split(",")]
        decoder, self.tokenizer = small_decoder(args.parts / "smollm2", texts, IMAGE, layers)
        self.model = build_model(decoder, self.tokenizer, "efficientnet_lite2")
        load_backbone(self.tower.backbone, args.parts / "efficientnet_lite2.safetensors")
        self.tower.to(memory_format=torch.channels_last)
        self.model.set_attn_implementation({"text_config": "aas_recorded"})
        self.words = Words(find_concepts(self.photos), self.tokenizer)
        # What the cells are compared with: at first the decoder's own embeddings of the words, then trained with them.
        self.table = nn.Parameter(self.words.embeddings(self.model.get_input_embeddings().weight.detach()))
        self.model.to(args.device)
        self.table.data = self.table.to(args.device)
        self.probe = Probe(choose, self.words, args.data)
        n_parameters = sum(p.numel() for p in self.model.parameters())
        print(
            f"{len(self.photos)} photographs, {len(self.tokenizer)} tokens, {len(self.words.concepts)} words, "
            f"{n_parameters / 1e6:.1f} M parameters",
            flush=True,
        )

    @property
    def tower(self) -> MobileTower:
        return self.model.model.vision_tower

    @property
    def projector(self) -> LlavaMultiModalProjector:
        return self.model.model.multi_modal_projector

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"tower": self.tower, "projector": self.projector, "decoder": self.model.model.language_model}

    def save(self, name: str, parts: Iterable[str]) -> None:
        """The table goes with the projector, whose cells it is compared with."""
        tensors = {
            f"{part}.{key}": value.contiguous()
            for part in parts
            for key, value in self.parts[part].state_dict().items()
        }
        if "projector" in parts:
            tensors["table"] = self.table.detach()
        save_file(tensors, self.args.work / f"{name}.safetensors")

    def load(self, name: str) -> None:
        """What the file holds; everything else stays."""
        tensors = load_file(self.args.work / f"{name}.safetensors", device=self.args.device)
        self.table.data = tensors.pop("table", self.table.data)
        for part, module in self.parts.items():
            state = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
            if state:
                module.load_state_dict(state)

    def phase(
        self,
        name: str,
        groups: list[tuple[list[nn.Parameter], float]],
        batches: Callable[[int], Batch],
        losses: Callable[[Batch], dict[str, Tensor]],
        figures: Callable[[], dict[str, float]],
    ) -> None:
        args = self.args
        log = run_phase(
            name,
            args.steps or STEPS[args.phase],
            groups,
            batches,
            losses,
            figures,
            args.work,
            args.every,
            n_workers=args.workers,
        )
        (args.work / f"{name}.json").write_text(json.dumps(log, indent=1) + "\n")

    def learn_words(self) -> None:
        args = self.args
        standardize_cells(self.model, self.photos[:64])
        add_cell_dropout(self.model, args.cell_dropout)
        self.model.requires_grad_(False).train()
        self.tower.requires_grad_(True)
        self.projector.requires_grad_(True)
        backbone = self.tower.backbone
        freeze_first_blocks(backbone, args.frozen_blocks)

        def losses(batch: Batch) -> dict[str, Tensor]:
            lens = cosines(cells_of(self.model, batch.pixels), self.table)
            return {"word": word_loss(lens, batch.targets, batch.n_mosaics, args.scale)}

        fast = [self.tower.scale, self.tower.shift, self.tower.position, *self.projector.parameters()]
        groups = [(list(backbone.parameters()), args.tower_lr), (fast, 6e-4), ([self.table], 3e-4)]
        batches = PhotoBatches(self.photos, self.words, args.mosaics, args.singles, args.seed + 1)
        self.phase("words", groups, batches, losses, lambda: self.probe(self.model, self.table, language=False))
        self.save("after_words", ("tower", "projector"))

    def learn_language(self) -> None:
        """Every weight of the decoder but the embeddings, on text alone."""
        args = self.args
        self.ask_questions()
        told = [Told(QUESTIONS[i % len(QUESTIONS)], text) for i, text in enumerate(caption_texts(args.data))]
        told += [Told(*asked) for photo in self.photos for asked in photo.questions]
        decoder = self.model.model.language_model
        self.model.requires_grad_(False).train()
        decoder.layers.requires_grad_(True)
        decoder.norm.requires_grad_(True)

        def losses(batch: Batch) -> dict[str, Tensor]:
            return {"token": token_loss(self.model, text_forward(self.model, batch, None)[0], batch, 0)}

        batches = TextBatches(told, self.words, args.mosaics + args.singles, args.seed + 3)
        groups = [(list(decoder.parameters()), 2e-4)]
        self.phase("language", groups, batches, losses, lambda: self.probe.text_loss(self.model))
        self.save("after_language", ("decoder",))

    def ask_questions(self) -> None:
        self.photos = with_questions(self.photos, spacy.load(self.args.parts / "en_core_web_sm"), self.args.data)

    def scale_cells(self) -> None:
        """Bring the projected cells to the length of a token's embedding, as the pretrained decoder is used to."""
        pixels = to_pixels(np.stack([cv2.resize(photo.pixels, (SIDE, SIDE)) for photo in self.photos[:32]]))
        with torch.no_grad():
            length = self.projector(self.tower(pixels.to(self.args.device)).last_hidden_state).norm(dim=-1).mean()
            wanted = self.model.get_input_embeddings().weight.norm(dim=-1).mean()
            for parameter in (self.projector.linear_2.weight, self.projector.linear_2.bias):
                parameter.mul_(wanted / length)

    def teacher(self) -> Callable[[Tensor], Tensor]:
        """The cells' word scores by the projector and table of the words phase, which stand still."""
        projector, table = copy.deepcopy(self.projector).eval(), self.table.detach().clone()

        @torch.no_grad()
        def lens(seen: Tensor) -> Tensor:
            return smoothed(cosines(projector(seen), table))

        return lens

    def adapted(self) -> LoraModel:
        """Give the decoder adapters; what it knew of language stays as it is."""
        args = self.args
        config = LoraConfig(
            r=args.rank, lora_alpha=2 * args.rank, lora_dropout=args.dropout, target_modules="all-linear"
        )
        return LoraModel(self.model.model.language_model, config, "default")

    def learn_captions(self) -> None:
        if self.args.control == "eyes":
            standardize_cells(self.model, self.photos[:64])
        else:
            self.load("after_words")
        if (self.args.work / "after_language.safetensors").exists():
            self.load("after_language")
        self.ask_questions()
        teacher = self.teacher()
        self.scale_cells()
        batches = PhotoBatches(self.photos, self.words, self.args.mosaics, self.args.singles, self.args.seed + 2)
        name = f"control_{self.args.control}" if self.args.control else "captions"
        self.learn_to_tell(name, batches, teacher)

    def learn_from_own_answers(self) -> None:
        """The rows that predict a caption's words do not know them yet; in its own answer the model nearly does."""
        self.load("after_words")
        teacher = self.teacher()
        self.load("after_captions")
        self.ask_questions()
        path = self.args.work / "own_answers.json"
        if not path.exists():
            path.write_text(json.dumps(own_answers(self.model, self.words, self.photos)))
        n_photos = self.args.mosaics + self.args.singles
        batches = OwnBatches(self.photos, json.loads(path.read_text()), self.words, n_photos, self.args.seed + 4)
        self.learn_to_tell("own", batches, teacher)

    def learn_to_tell(self, name: str, batches: PhotoBatches, teacher: Callable[[Tensor], Tensor]) -> None:
        """The tower and the teacher of the attention stand still.

        Trained on with captions, the cells lose sight of where things are: pointing of the cells' own scores on the
        photographs for choosing fell from 0.62 to 0.51 in 600 steps.
        """
        args = self.args
        self.model.requires_grad_(False).train()
        adapters = self.adapted()
        self.projector.requires_grad_(True)
        add_cell_dropout(self.model, args.cell_dropout)

        def losses(batch: Batch) -> dict[str, Tensor]:
            with torch.no_grad():
                seen = self.tower(batch.pixels).last_hidden_state
            cells = self.projector(seen)
            hidden, maps = text_forward(self.model, batch, cells)
            assert maps is not None
            told = {"token": token_loss(self.model, hidden, batch, 0.05)}
            if args.control:
                return told
            lens = cosines(cells, self.table)
            return told | {
                "word": args.word_weight * word_loss(lens, batch.targets, batch.n_mosaics, args.scale),
                "pointing": args.pointing_weight * attention_loss(maps, teacher(seen), batch, args.sharpness),
            }

        lora = [p for p in adapters.parameters() if p.requires_grad]
        projector = [*self.projector.parameters(), self.table]
        groups = [(lora, args.lr), (projector, 3e-4)]
        self.phase(name, groups, batches, losses, lambda: self.probe(self.model, self.table))
        adapters.merge_and_unload()
        self.save(f"after_{name}", self.parts)

    def ship(self) -> None:
        """Every part in a folder that `aas` loads, matrices in 8 bits."""
        self.load(self.args.weights)
        self.model.set_attn_implementation({"text_config": "sdpa"})
        int8.save(self.model, self.args.out)
        build_processor(self.tokenizer).save_pretrained(self.args.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phase", choices=[*STEPS, "ship"])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--parts", type=Path, required=True, help="folder that parts.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", help="numbers of the decoder's layers that stay, as 0,1,2; default: all")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--cell-dropout", type=float, default=0.25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that make batches")
    parser.add_argument("--control", choices=["eyes", "attention"], help="captions by next-token loss alone")
    parser.add_argument("--weights", default="after_own", help="ship: which weights of the work folder")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/embedded/lmm"), help="ship: the folder")
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--mosaics", type=int, default=6)
    parser.add_argument("--singles", type=int, default=6)
    parser.add_argument("--rank", type=int, default=16, help="of the decoder's adapters")
    parser.add_argument("--frozen-blocks", type=int, default=99, help="words: first blocks of the tower that stay")
    parser.add_argument("--tower-lr", type=float, default=1e-4, help="words: of the tower's other blocks")
    parser.add_argument("--lr", type=float, default=5e-4, help="of the decoder's adapters")
    parser.add_argument("--word-weight", type=float, default=0.3)
    parser.add_argument("--pointing-weight", type=float, default=0.5)
    parser.add_argument("--sharpness", type=float, default=2.0, help="of the attention loss's target")
    parser.add_argument("--scale", type=float, default=16.0, help="inverse temperature of the word loss")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")  # TF32 where there is a GPU
    args.work.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    {
        "words": run.learn_words,
        "language": run.learn_language,
        "captions": run.learn_captions,
        "own": run.learn_from_own_answers,
        "ship": run.ship,
    }[args.phase]()


if __name__ == "__main__":
    main()
