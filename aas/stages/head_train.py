"""`aas head train`: a mask head on a frozen LMM, by a recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option


@dataclass(frozen=True, kw_only=True)
class HeadTrain:
    """Train a mask head on a frozen LMM, from corrected runs, RefCOCO, panoptic narratives, COCO's instances.

    What the LMM sees of each photograph is captured once and kept in OUT/cache, or anew at each step (cache: false). A
    training that was stopped goes on from OUT/state.safetensors, on a CPU to the same bits.
    """

    config: Annotated[Path, Option(help="The recipe, a YAML file (docs/heads.md).")]
    device: Annotated[str | None, Option(help="Of the capture: cpu, cuda, ... Default: cuda if there is one.")] = None


def train_head(options: HeadTrain) -> int:
    """Train, or go on; returns 3 where some photographs could not be learned from. Raises ValueError or OSError for a
    recipe that cannot work."""
    from aas.training.recipe import Recipe
    from aas.training.run import train

    recipe: Recipe = Recipe.read(options.config)
    return train(recipe, options.device)
