"""Train the mask heads on the embedded LMM, by the recipes that ship, on photographs that are free to train on.

    python scripts/embedded/train_heads.py --work trained [--head unet|highres|proposals]
    python scripts/embedded/head_figures.py --head trained/unet-embedded/head.safetensors ... [--split choose]

Stopped, it goes on. For another LMM name another folder.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from head_data import CHOOSE, PHOTOGRAPHS, TRAIN, write_runs
from split import default_data_dir

from aas.training.recipe import Recipe
from aas.training.run import train

KINDS = ["unet", "highres", "proposals"]
RECIPES = Path(__file__).resolve().parents[2] / "recipes/heads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--work", type=Path, default=Path("trained"))
    parser.add_argument(
        "--views",
        type=int,
        default=5,
        help="pictures of a photograph: itself, and crops, each with another of its captions",
    )
    parser.add_argument("--head", choices=KINDS, help="Default: all.")
    args = parser.parse_args()
    made = args.work / "data"
    write_runs(args.data, made, args.views)
    for kind in [args.head] if args.head else KINDS:
        recipe = Recipe.read(RECIPES / f"{kind}-embedded.yaml")
        places = {"runs": [made / TRAIN], "images": made / PHOTOGRAPHS, "validation": [made / CHOOSE]}
        train(replace(recipe, out=args.work / f"{kind}-embedded", **places))


if __name__ == "__main__":
    main()
