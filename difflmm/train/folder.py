"""The folder of a run: whether it may be filled, and what is noted in it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from difflmm.data.rows import Skipped, summary
from difflmm.files import ADAPTER_FILES, is_whole
from difflmm.recipe import Recipe, read_recipe

CHECKPOINTS, RECIPE, SKIPPED, LOG = "checkpoints", "recipe.yaml", "skipped.jsonl", "log.jsonl"


def checked_checkpoint(recipe: Recipe) -> str | None:
    """The folder of the last whole checkpoint in `recipe.out`, None if there is none yet; ValueError if `recipe.out` is
    another run's."""
    path = recipe.out / RECIPE
    if (recipe.out / "config.json").is_file():
        raise ValueError(f"{recipe.out} holds a finished model: remove it, or take another out.")
    last = _last_whole(recipe.out / CHECKPOINTS)
    if last is not None and path.is_file() and (changed := _changed(path, recipe)):
        raise ValueError(
            f"{last} was made by another recipe ({path}; {changed}): go on with that one, or take another out."
        )
    return last


def _changed(path: Path, recipe: Recipe) -> str:
    """What `recipe` has otherwise than that of `path`, empty if nothing."""
    try:
        before, now = asdict(read_recipe(path)), asdict(recipe)
    except ValueError as error:
        return f"which is not read any more: {error}"
    return ", ".join(f"{name} was {before[name]}, now {now[name]}" for name in now if before[name] != now[name])


def _last_whole(folder: Path) -> str | None:
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(numbered, key=lambda path: -int(path.name.rpartition("-")[2])):
        damaged = _damaged(checkpoint)
        if damaged is None:
            return str(checkpoint)
        print(f"{damaged} is missing, damaged or cut off: {checkpoint} is passed over", file=sys.stderr)
    return None


def _damaged(checkpoint: Path) -> Path | None:
    """The first of its files that is not whole. The Trainer's state is written last."""
    state = checkpoint / TRAINER_STATE_NAME
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return state
    adapter = next(iter(checkpoint.glob("adapter_model.*")), checkpoint / ADAPTER_FILES[0])
    pickled = [checkpoint / name for name in (OPTIMIZER_NAME, SCHEDULER_NAME) if (checkpoint / name).is_file()]
    return next((file for file in (adapter, *pickled) if not is_whole(file)), None)


def note(recipe: Recipe, skipped: Sequence[Skipped], n_used: int) -> None:
    """What is trained on and which rows are not, into `recipe.out`; how many are not, on stderr."""
    recipe.out.mkdir(parents=True, exist_ok=True)
    (recipe.out / RECIPE).write_text(recipe.to_yaml(), encoding="utf-8")
    path = recipe.out / SKIPPED
    path.unlink(missing_ok=True)
    if skipped:
        lines = [json.dumps({"row": each.index, "id": each.id, "error": each.error}) + "\n" for each in skipped]
        path.write_text("".join(lines), encoding="utf-8")
        n_rows = len(skipped) + n_used
        print(f"{len(skipped)} of {n_rows} rows are skipped: {summary(skipped)}. See {path}", file=sys.stderr)
