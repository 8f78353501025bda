"""Train the embedded LMM from photographs and captions alone; no mask or box is read.

    python scripts/embedded/train_lmm.py --data ../shared/data --out checkpoints/embedded/lmm --work work/lmm

Four phases, one after the other:
1. language: the decoder learns the captions of photographs that are not here;
2. words: the tower learns, end to end, which cells show which word of the captions (word loss);
3. captions: everything but the tower, with the captions of the photograph packed behind one image prefix;
4. own answers: the attention is taught on what the model itself says of the photographs, the captions go on.

Losses, all from captions only: next token; **word loss** (the best cells of a photograph must score the words of its
captions, cosine with the words' own embeddings); **attention loss** (the attention that predicts a word, averaged over
layers and heads, must lie where the word scores). Half of the pictures are mosaics of four photographs: a caption's
words must then be found in its own quarter, which teaches where without ever being told.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from caption_data import find_concepts, load_caption_text, load_photos
from imagenet_mobilenet import coral_tflite, load_imagenet
from lmm_batches import Batch, PhotoBatches, Words, collate, pack
from lmm_losses import (
    attention_loss,
    cells_of,
    cosines,
    keeping_loss,
    lens_of,
    smoothed,
    text_forward,
    token_loss,
    word_loss,
)
from lmm_model import (
    GRID,
    QUESTIONS,
    add_dropout,
    build_model,
    build_processor,
    standardize_cells,
    train_tokenizer,
)
from lmm_own_answers import OwnBatches, own_answers
from lmm_probe import Probe
from split import default_data_dir
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaForConditionalGeneration


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
        if not parameter.requires_grad:
            continue
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
        n_parameters = sum(p.numel() for p in self.model.parameters())
        print(
            f"{len(self.train_photos)} photographs, {len(own)} captions, {len(self.texts)} texts, "
            f"{len(self.words.concepts)} words, {n_parameters / 1e6:.2f} M parameters",
            flush=True,
        )

    def go_on_from(self, folder: Path) -> None:
        """Weights of an earlier run; its cells' positions are resized to this grid."""
        weights = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).state_dict()
        position = weights["model.vision_tower.position"]
        side = math.isqrt(len(position))
        grid = F.interpolate(position.T.reshape(1, -1, side, side), (GRID, GRID), mode="bilinear")
        weights["model.vision_tower.position"] = grid[0].flatten(1).T
        self.model.load_state_dict(weights)

    def report(self, phase: str, step: int, **figures: float) -> None:
        entry = {"phase": phase, "step": step, "seconds": round(time.time() - self.started), **figures}
        self.log.append(entry)
        print(" ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in entry.items()), flush=True)

    def loop(
        self,
        phase: str,
        n_steps: int,
        lr: float,
        tower_lr: float,
        losses: Callable[[], dict[str, Tensor]],
        every: int,
        decay: float = 0.998,
    ) -> None:
        """`losses()` -> {name: weighted loss}; evaluates the averaged weights every so many steps and at the end."""
        model = self.model.train()
        optimizer = optimizer_for(model, lr, tower_lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine(s, n_steps, min(100, n_steps // 10)))
        average = Average(model, decay)
        running: dict[str, float] = {}
        for step in range(1, n_steps + 1):
            with torch.autocast("cpu", torch.bfloat16):
                parts = losses()
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            average.update(model)
            for name, loss in parts.items():
                running[name] = 0.98 * running.get(name, loss.item()) + 0.02 * loss.item()
            if step % every == 0 or step == n_steps:
                average.swap(model)
                figures = {} if phase == "language" else self.probe(model, language=phase != "words")
                self.report(phase, step, **running, **figures)
                if step < n_steps:
                    average.swap(model)

    def export(self, folder: Path) -> None:
        """Weights in float16, the processor, and the log."""
        self.model.half().save_pretrained(folder)
        build_processor(self.tokenizer).save_pretrained(folder)
        (folder / "training.json").write_text(json.dumps(self.log, indent=1) + "\n")

    # -- phases --

    def language(self, n_steps: int) -> None:
        rng = np.random.default_rng(self.args.seed)
        texts = self.texts + self.own
        queue: list[int] = []

        def losses() -> dict[str, Tensor]:
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

    def words_phase(self, n_steps: int, lr: float, tower_lr: float, seed: int) -> None:
        batches = PhotoBatches(self.train_photos, self.words, 6, 6, seed)

        def losses() -> dict[str, Tensor]:
            batch = batches()
            lens = lens_of(cells_of(self.model, batch.pixels), self.words, self.model.get_input_embeddings().weight)
            return {"word": word_loss(lens, batch.targets, batch.n_mosaics, self.args.scale)}

        self.loop("words", n_steps, lr, tower_lr, losses, every=200)

    def captions(self, n_steps: int) -> None:
        """The tower and the teacher of the attention (the projector and embeddings of the words phase) stand still.

        Trained on with captions, the cells lose sight of where things are: pointing of the cells' own scores on the
        photographs for choosing fell from 0.62 to 0.51 in 600 steps.
        """
        args, model = self.args, self.model
        model.model.vision_tower.requires_grad_(False)
        teacher = self.teacher()
        batches = PhotoBatches(self.train_photos, self.words, args.mosaics, args.singles, args.seed + 2)

        def losses() -> dict[str, Tensor]:
            batch = batches()
            with torch.no_grad():
                seen = model.model.vision_tower(batch.pixels).last_hidden_state
            cells = model.model.multi_modal_projector(seen)
            lens = lens_of(cells, self.words, model.get_input_embeddings().weight)
            hidden, maps = text_forward(model, batch, cells)
            assert maps is not None
            return {
                "token": token_loss(model, hidden, batch, 0.05),
                "word": word_loss(lens, batch.targets, batch.n_mosaics, args.scale),
                "pointing": attention_loss(maps, teacher(seen), batch, args.sharpness),
            }

        self.loop("captions", n_steps, 5e-4, 0.0, losses, every=200)

    def teacher(self) -> Callable[[Tensor], Tensor]:
        """The cells' word scores by today's projector and embeddings, which training does not change any more."""
        projector = copy.deepcopy(self.model.model.multi_modal_projector).eval()
        embeddings = self.words.embeddings(self.model.get_input_embeddings().weight.detach()).clone()

        @torch.no_grad()
        def lens(seen: Tensor) -> Tensor:
            return cosines(projector(seen), embeddings)

        return lens

    def own_answers(self, n_steps: int, n_keeping: int) -> None:
        """The attention is taught on what the model itself says; captions go on, so that it still says it well.

        The teacher is smoothed: a word's best single cell is often beside the thing. The second round learns no
        captions but keeps the language of before: after 600 steps the held-out loss had risen from 3.19 to 3.26.
        """
        answers = own_answers(self.model, self.words, self.train_photos)
        self.model.model.vision_tower.requires_grad_(False)
        before, teacher = copy.deepcopy(self.model).eval(), self.teacher()
        self.own_round(n_steps, answers, teacher, None)
        self.own_round(n_keeping, answers, teacher, before)

    def own_round(
        self,
        n_steps: int,
        answers: list[str],
        teacher: Callable[[Tensor], Tensor],
        before: LlavaForConditionalGeneration | None,
    ) -> None:
        """Captions are learned, or with `before` its language is kept."""
        args, model = self.args, self.model
        seed = args.seed + (5 if before else 4)
        batches = OwnBatches(self.train_photos, answers, self.words, args.own_photos, seed)

        def language(hidden: Tensor, batch: Batch, seen: Tensor) -> dict[str, Tensor]:
            if before is None:
                return {"token": token_loss(model, hidden, batch, 0.05)}
            with torch.no_grad():
                hidden_before, _ = text_forward(before, batch, before.model.multi_modal_projector(seen))
                log_p = before.lm_head(hidden_before[batch.segment > 0]).float().log_softmax(-1)
            return {"keeping": 2 * keeping_loss(model, hidden, log_p, batch)}

        def losses() -> dict[str, Tensor]:
            batch = batches()
            with torch.no_grad():
                seen = model.model.vision_tower(batch.pixels).last_hidden_state
            hidden, maps = text_forward(model, batch, model.model.multi_modal_projector(seen))
            assert maps is not None
            pointing = attention_loss(maps, smoothed(teacher(seen)), batch, args.sharpness)
            return language(hidden, batch, seen) | {"pointing": args.own_weight * pointing}

        lr = args.own_lr if before is None else args.own_lr / 2
        self.loop("keeping" if before else "own answers", n_steps, lr, 0.0, losses, every=125, decay=0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--out", type=Path, default=Path("checkpoints/embedded/lmm"))
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate checkpoints")
    parser.add_argument("--init", type=Path, help="folder of a trained LMM: skip to the second round of words")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=4000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--cell-dropout", type=float, default=0.25)
    parser.add_argument("--language-steps", type=int, default=500)
    parser.add_argument("--words-steps", type=int, default=600)
    parser.add_argument("--more-words-steps", type=int, default=500, help="a second round, with a smaller rate")
    parser.add_argument("--captions-steps", type=int, default=800)
    parser.add_argument("--own-steps", type=int, default=600)
    parser.add_argument("--keeping-steps", type=int, default=250)
    parser.add_argument("--own-photos", type=int, default=6)
    parser.add_argument("--own-weight", type=float, default=2.0, help="of the attention loss on own answers")
    parser.add_argument("--own-lr", type=float, default=3e-4)
    parser.add_argument("--mosaics", type=int, default=6)
    parser.add_argument("--singles", type=int, default=10)
    parser.add_argument("--scale", type=float, default=16.0, help="inverse temperature of the word loss")
    parser.add_argument("--sharpness", type=float, default=2.0, help="of the attention loss's target")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    run = Run(args)
    if args.init:
        run.go_on_from(args.init)
    else:
        run.language(args.language_steps)
        run.words_phase(args.words_steps, 6e-4, 2e-4, args.seed + 1)
        torch.save(run.model.state_dict(), args.work / "after_words.pt")
    if args.more_words_steps:
        # Edges and colours are learned by now, and the first blocks' backward pass is the dearest.
        backbone = run.model.model.vision_tower.backbone
        for part in (backbone.stem, *backbone.blocks[:3]):
            part.requires_grad_(False)
        run.words_phase(args.more_words_steps, 3e-4, 1.5e-4, args.seed + 3)
        torch.save(run.model.state_dict(), args.work / "after_more_words.pt")
    if not args.init:
        run.captions(args.captions_steps)
    run.own_answers(args.own_steps, args.keeping_steps)
    run.export(args.out)


if __name__ == "__main__":
    main()
