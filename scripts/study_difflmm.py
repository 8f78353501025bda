"""A small study on two CPU cores: what a diffusion encoder is worth beside CLIP, when both LMMs are trained alike.

    python scripts/study_difflmm.py --data ../shared/data --work study          what docs/difflmm-study.md reports
    python scripts/study_difflmm.py --work try --quick                          whether it runs: tiny numbers

All towers are trained here, on COCO's captioned photographs but those kept out (scripts/embedded/split.py): a CLIP that
all arms share, and a Stable Diffusion of its shape. The LLM is the embedded LMM's. Arms differ in their encoder alone:
recipes, steps, batches, rates, seeds and the order of rows are the same. Every part is kept in --work and not made
again: the same command goes on where it was stopped.
"""

import argparse
import copy
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "embedded"))

from PIL import Image
from split import default_data_dir
from study_judge import QUESTION, Judge, summarise, tables
from study_towers import SIDE, Photo, TowerTrainer, captioned_photos
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaForCausalLM

from aas.lmms import load_lmm
from aas.paths import embedded_dir
from aas.store.atomic import write_text
from difflmm.data.images import read_image
from difflmm.recipe import Recipe, read_recipe
from difflmm.train import train

RECIPES = Path(__file__).parent.parent / "recipes"
# Of the diffusion encoder: its up-block 1 has the grid of the study's CLIP.
ENCODER = {"resolution": SIDE, "timestep": 100, "up_block": 1, "ensemble_size": 1}
# Recipe, and what is set of its encoder.
ARMS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "clip": ("llava", None),
    "difflmm": ("difflmm", ENCODER | {"concat_clip": True}),
    "unet": ("difflmm", ENCODER | {"concat_clip": False}),  # CLIP makes the implicit caption only
}
# Instead of the published recipes' values, in all arms: small batches and models, few steps.
SMALL = {"batch_size": 16, "device_batch_size": 16, "max_length": 512, "precision": "float32"}
SMALL |= {"gradient_checkpointing": False, "workers": 0, "save_steps": 50, "log_steps": 10}
STAGE_1 = {"projector_learning_rate": 2e-3}
STAGE_2 = {"projector_learning_rate": 1e-3, "lora_learning_rate": 1e-3, "lora_rank": 32, "lora_alpha": 64}
TOWERS = {"clip": 64, "vae": 16, "unet": 32}  # and their batches
N_LAYERS_QUICK = 2
N_QUICK = {"train": 5, "choose": 5, "figures": 2}  # photographs


# ---------------------------------------------------------------------------------------------- what is trained on


def write_llm(folder: Path, n_layers: int | None) -> None:
    """The embedded LMM's language model, or its first layers, and tokenizer, float32."""
    decoder = load_lmm("embedded", "cpu").model.model.language_model
    config = copy.deepcopy(decoder.config)
    config.num_hidden_layers = n_layers or config.num_hidden_layers
    llm = LlamaForCausalLM(config)
    llm.model.load_state_dict({name: w for name, w in decoder.state_dict().items() if name in llm.model.state_dict()})
    llm.tie_weights()
    llm.save_pretrained(folder)
    AutoTokenizer.from_pretrained(embedded_dir("lmm")).save_pretrained(folder)


def write_small(photos: Iterable[Photo], data_dir: Path, folder: Path) -> None:
    """The photographs, no larger than the encoders take them: they are shrunk once, not in every run."""
    for photo in tqdm(list(photos), "Shrinking photographs"):
        out = folder / photo.small_file
        if not out.is_file():
            image = read_image(data_dir / "coco" / photo.file)
            scale = SIDE / max(image.size)
            small = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
            out.parent.mkdir(parents=True, exist_ok=True)
            small.save(out.with_suffix(".part"), "png")
            out.with_suffix(".part").replace(out)


def write_rows(photos: Iterable[Photo], folder: Path) -> None:
    """Stage 1: a row for each caption. Stage 2: one for each photograph, whose answer is all of its captions."""
    for stage in (1, 2):
        rows = []
        for photo in photos:
            for answer in photo.captions if stage == 1 else [" ".join(photo.captions)]:
                turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": answer}]
                rows.append({"id": str(photo.image_id), "image": photo.small_file, "conversations": turns})
        write_text(folder / f"stage{stage}.json", json.dumps(rows))


# -------------------------------------------------------------------------------------------------------- training


def recipe(arm: str, stage: int, seed: int, n_steps: int, work: Path) -> Recipe:
    """The published recipe of an arm's stage, but for SMALL's values."""
    name, encoder = ARMS[arm]
    out = model_folder(arm, seed, work)
    changes: dict[str, Any] = SMALL | (STAGE_1 if stage == 1 else STAGE_2)
    changes |= {"out": out / f"stage{stage}", "seed": seed, "max_steps": n_steps}
    changes |= {"data": work / f"stage{stage}.json", "images": work / "photos"}
    if stage == 1:
        changes |= {"llm": work / "llm", "clip": work / "towers/clip"}
        changes |= {"diffusion": work / "towers", "encoder_options": encoder} if encoder else {}
    else:
        changes["model"] = out / "stage1"
    if encoder:
        changes["features"] = work / "features"
    as_yaml = [f"{key}={json.dumps(value, default=str)}" for key, value in changes.items()]
    return read_recipe(RECIPES / f"{name}-stage{stage}.yaml", as_yaml)


def model_folder(arm: str, seed: int, work: Path) -> Path:
    return work / "models" / f"{arm}-{seed}"


def trained(arm: str, seed: int, steps: list[int], work: Path) -> Path:
    """The model after both stages; what is there is not trained again."""
    for stage in (1, 2):
        settings = recipe(arm, stage, seed, steps[stage - 1], work)
        if not (settings.out / "config.json").is_file():
            print(f"{arm}, seed {seed}, stage {stage}", file=sys.stderr)
            train(settings)
    return settings.out


def check_settings(args: argparse.Namespace) -> None:
    """A work folder is of one choice of steps."""
    path, settings = args.work / "settings.json", {"tower_steps": args.tower_steps, "steps": args.steps}
    settings["quick"] = args.quick
    if path.is_file() and json.loads(path.read_text()) != settings:
        sys.exit(f"{args.work} was made with other steps ({path.read_text()}): take those, or another --work.")
    write_text(path, json.dumps(settings))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--work", type=Path, required=True, help="keeps all parts; the same command goes on there")
    parser.add_argument("--tower-steps", type=int, nargs=3, default=[320, 200, 200], metavar=("CLIP", "VAE", "UNET"))
    parser.add_argument("--steps", type=int, nargs=2, default=[300, 60], metavar=("STAGE1", "STAGE2"))
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=["clip", "difflmm"], help="the first is the baseline"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of projector, order and noise")
    parser.add_argument("--split", choices=["figures", "choose"], default="figures")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="a step of everything, on a few photographs")
    args = parser.parse_args()
    if args.quick:
        args.tower_steps, args.steps, args.seeds = [1, 1, 1], [1, 1], [0]
    return args


def main() -> None:
    args = parse()
    args.work.mkdir(parents=True, exist_ok=True)
    check_settings(args)
    photos = captioned_photos(args.data)
    if args.quick:
        photos = {part: of[: N_QUICK[part]] for part, of in photos.items()}
    if not (args.work / "llm/tokenizer.json").is_file():
        write_llm(args.work / "llm", N_LAYERS_QUICK if args.quick else None)
    write_small((photo for of in photos.values() for photo in of), args.data, args.work / "photos")
    write_rows(photos["train"], args.work)
    towers = train_towers(photos, args)
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    judge = Judge(args.data, args.work / "photos", photos[args.split])
    for seed in args.seeds:  # outside: what is stopped has whole comparisons
        for arm in args.arms:
            model = trained(arm, seed, args.steps, args.work)
            results[arm].append(judge(model, model.parent / f"{args.split}.json"))
    figures = summarise(results, [photo.image_id for photo in photos[args.split]])
    print(tables(figures))
    if args.json:
        settings = {"steps": args.steps, "seeds": args.seeds, "split": args.split, "photographs": len(judge.photos)}
        write_text(args.json, json.dumps(settings | {"towers": towers, "figures": figures}, indent=1))


def train_towers(photos: dict[str, list[Photo]], args: argparse.Namespace) -> dict[str, Any]:
    """What each tower came to."""
    tokenizer = AutoTokenizer.from_pretrained(args.work / "llm")
    trainer = TowerTrainer(photos, args.data, args.work / "towers", tokenizer)
    steps = dict(zip(TOWERS, args.tower_steps, strict=True))
    return {name: trainer.train(name, steps[name], batch_size) for name, batch_size in TOWERS.items()}


if __name__ == "__main__":
    main()
