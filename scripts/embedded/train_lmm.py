"""Train the embedded LMM from photographs and captions; no mask or box is read.

    python scripts/embedded/parts.py --out work/parts
    python scripts/embedded/train_lmm.py words --work work/lmm --parts work/parts
    python scripts/embedded/train_lmm.py captions --work work/lmm --parts work/parts

`words`: the tower learns, end to end, which cells show which word of the captions (word loss). Half of the pictures
are mosaics of four photographs: a caption's words must then be found in its own quarter, which teaches where without
ever being told.
"""

import argparse
from pathlib import Path

import torch
from caption_data import caption_texts, find_concepts, load_photos, question_texts
from lmm_batches import PhotoBatches, Words
from lmm_decoder import small_decoder
from lmm_losses import cells_of, cosines, word_loss
from lmm_model import AFTER, BEFORE, IMAGE, QUESTIONS, add_dropout, build_model, standardize_cells
from lmm_probe import Probe
from lmm_training import run_phase
from safetensors.torch import load_file, save_file
from split import default_data_dir
from torch import Tensor, nn

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
        self.tower.backbone.load_state_dict(load_file(args.parts / "efficientnet_lite2.safetensors"))
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
    def tower(self) -> nn.Module:
        return self.model.model.vision_tower

    @property
    def projector(self) -> nn.Module:
        return self.model.model.multi_modal_projector

    def save(self, name: str) -> None:
        parts = {"tower": self.tower, "projector": self.projector}
        tensors = {
            f"{part}.{key}": value.contiguous()
            for part, module in parts.items()
            for key, value in module.state_dict().items()
        }
        save_file({"table": self.table.detach()} | tensors, self.args.work / f"{name}.safetensors")

    def load(self, name: str) -> None:
        tensors = load_file(self.args.work / f"{name}.safetensors")
        self.table.data = tensors.pop("table")
        for part, module in {"tower": self.tower, "projector": self.projector}.items():
            prefix = f"{part}."
            module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})

    def train_words(self) -> None:
        args = self.args
        standardize_cells(self.model, self.photos[:64])
        add_dropout(self.model, args.dropout, args.cell_dropout)
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
        self.save("after_words")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phase", choices=["words"])
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
    parser.add_argument("--scale", type=float, default=16.0, help="inverse temperature of the word loss")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    run = Run(args)
    run.train_words()


if __name__ == "__main__":
    main()
