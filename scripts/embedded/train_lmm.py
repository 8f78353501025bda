"""Train the embedded LMM from photographs and captions; no mask or box is read.

    python scripts/embedded/parts.py --out work/parts
    python scripts/embedded/train_lmm.py words --work work/lmm --parts work/parts
    python scripts/embedded/train_lmm.py captions --work work/lmm --parts work/parts

`words`: the tower learns, end to end, which cells show which word of the captions (word loss). Half of the pictures
are mosaics of four photographs: a caption's words must then be found in its own quarter, which teaches where without
ever being told.
"""

import argparse
import copy
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import spacy
import torch
from caption_data import caption_texts, find_concepts, load_photos, question_texts, with_questions
from lmm_batches import PhotoBatches, Words
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
    standardize_cells,
    to_pixels,
)
from lmm_probe import Probe
from lmm_training import run_phase
from parts import load_backbone
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from safetensors.torch import load_file, save_file
from split import default_data_dir
from torch import Tensor, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from aas.lmms.embedded import MobileTower

N_FROZEN_BLOCKS = 7  # of EfficientNet-Lite2: what sees edges and colours, and the dearest to train


class Run:
    """The model, its words and the photographs; what the phases share."""

    def __init__(self, args: argparse.Namespace):
        torch.manual_seed(args.seed)
        self.args = args
        self.photos, choose = load_photos(args.data)
        prompts = [BEFORE + AFTER.format(question) for question in QUESTIONS]
        texts = caption_texts(args.data) + question_texts(args.data) + prompts
        layers = None if args.layers is None else [int(i) for i in args.layers.split(",")]
        decoder, tokenizer = small_decoder(args.parts / "smollm2", texts, IMAGE, layers)
        self.model = build_model(decoder, tokenizer, "efficientnet_lite2")
        load_backbone(self.tower.backbone, args.parts / "efficientnet_lite2.safetensors")
        self.tower.to(memory_format=torch.channels_last)
        self.model.set_attn_implementation({"text_config": "aas_recorded"})
        self.words = Words(find_concepts(self.photos), tokenizer)
        # What the cells are compared with: at first the decoder's own embeddings of the words, then trained with them.
        self.table = nn.Parameter(self.words.embeddings(self.model.get_input_embeddings().weight.detach()))
        self.probe = Probe(choose, self.words, args.data)
        n_parameters = sum(p.numel() for p in self.model.parameters())
        print(
            f"{len(self.photos)} photographs, {len(tokenizer)} tokens, {len(self.words.concepts)} words, "
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
        tensors = {
            f"{part}.{key}": value.contiguous()
            for part in parts
            for key, value in self.parts[part].state_dict().items()
        }
        save_file({"table": self.table.detach()} | tensors, self.args.work / f"{name}.safetensors")

    def load(self, name: str) -> None:
        tensors = load_file(self.args.work / f"{name}.safetensors")
        self.table.data = tensors.pop("table")
        for part, module in self.parts.items():
            state = {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
            if state:
                module.load_state_dict(state)

    def train_words(self) -> None:
        args = self.args
        standardize_cells(self.model, self.photos[:64])
        add_cell_dropout(self.model, args.cell_dropout)
        self.model.requires_grad_(False).train()
        self.tower.requires_grad_(True)
        self.projector.requires_grad_(True)
        backbone = self.tower.backbone
        for part in (backbone.stem, *backbone.blocks[:N_FROZEN_BLOCKS]):
            part.requires_grad_(False)
        batches = PhotoBatches(self.photos, self.words, args.mosaics, args.singles, args.seed + 1)

        def losses(step: int) -> dict[str, Tensor]:
            batch = batches(step)
            lens = cosines(cells_of(self.model, batch.pixels), self.table)
            return {"word": word_loss(lens, batch.targets, batch.n_mosaics, args.scale)}

        fast = [self.tower.scale, self.tower.shift, self.tower.position, *self.projector.parameters()]
        run_phase(
            "words",
            args.steps,
            [(list(backbone.parameters()), 3e-4), (fast, 6e-4), ([self.table], 3e-4)],
            losses,
            lambda: self.probe(self.model, self.table, language=False),
            args.work,
            args.every,
        )
        self.save("after_words", ("tower", "projector"))

    def scale_cells(self) -> None:
        """Bring the projected cells to the length of a token's embedding, as the pretrained decoder is used to."""
        pixels = to_pixels(np.stack([cv2.resize(photo.pixels, (SIDE, SIDE)) for photo in self.photos[:32]]))
        with torch.no_grad():
            length = self.projector(self.tower(pixels).last_hidden_state).norm(dim=-1).mean()
            wanted = self.model.get_input_embeddings().weight.norm(dim=-1).mean()
            for parameter in (self.projector.linear_2.weight, self.projector.linear_2.bias):
                parameter.mul_(wanted / length)

    def teacher(self) -> Callable[[Tensor], Tensor]:
        """The cells' word scores by today's projector and table, which training does not change any more."""
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

    def train_captions(self) -> None:
        """The tower and the teacher of the attention (the projector and table of the words phase) stand still.

        Trained on with captions, the cells lose sight of where things are: pointing of the cells' own scores on the
        photographs for choosing fell from 0.62 to 0.51 in 600 steps.
        """
        args = self.args
        self.load("after_words")
        self.photos = with_questions(self.photos, spacy.load(args.parts / "en_core_web_sm"), args.data)
        self.scale_cells()
        teacher = self.teacher()
        self.model.requires_grad_(False).train()
        adapters = self.adapted()
        self.projector.requires_grad_(True)
        add_cell_dropout(self.model, args.cell_dropout)
        batches = PhotoBatches(self.photos, self.words, args.mosaics, args.singles, args.seed + 2)

        def losses(step: int) -> dict[str, Tensor]:
            batch = batches(step)
            with torch.no_grad():
                seen = self.tower(batch.pixels).last_hidden_state
            cells = self.projector(seen)
            hidden, maps = text_forward(self.model, batch, cells)
            assert maps is not None
            return {
                "token": token_loss(self.model, hidden, batch, 0.05),
                "word": args.word_weight
                * word_loss(cosines(cells, self.table), batch.targets, batch.n_mosaics, args.scale),
                "pointing": args.pointing_weight * attention_loss(maps, teacher(seen), batch, args.sharpness),
            }

        lora = [p for p in adapters.parameters() if p.requires_grad]
        projector = [*self.projector.parameters(), self.table]
        run_phase(
            "captions", args.steps, [(lora, args.lr), (projector, 3e-4)], losses,
            lambda: self.probe(self.model, self.table), args.work, args.every,
        )  # fmt: skip
        adapters.merge_and_unload()
        self.save("after_captions", self.parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phase", choices=["words", "captions"])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--parts", type=Path, required=True, help="folder that parts.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for intermediate checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", help="numbers of the decoder's layers that stay, as 0,1,2; default: all")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--cell-dropout", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--mosaics", type=int, default=6)
    parser.add_argument("--singles", type=int, default=6)
    parser.add_argument("--rank", type=int, default=16, help="of the decoder's adapters")
    parser.add_argument("--lr", type=float, default=5e-4, help="of the decoder's adapters")
    parser.add_argument("--word-weight", type=float, default=0.3)
    parser.add_argument("--pointing-weight", type=float, default=0.5)
    parser.add_argument("--sharpness", type=float, default=2.0, help="of the attention loss's target")
    parser.add_argument("--scale", type=float, default=16.0, help="inverse temperature of the word loss")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    {"words": run.train_words, "captions": run.train_captions}[args.phase]()


if __name__ == "__main__":
    main()
