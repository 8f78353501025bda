"""From a recipe to a head: capture, learn, measure, save."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from aas import registry
from aas.export.photograph import Photograph
from aas.export.results import Results
from aas.heads.features import HeadShape
from aas.heads.head import MaskHead
from aas.heads.stored import Origin, save_head
from aas.lmms import load_lmm
from aas.lmms.phrase_features import head_shape
from aas.segmenters import load_segmenter
from aas.segmenters.sam_family import SamFamily
from aas.store.atomic import check_writable
from aas.store.lines import add_lines
from aas.training.cache import Cache, Capturer
from aas.training.fit import fit, validated
from aas.training.recipe import Recipe

HEAD, STATE, LOG, CACHE = "head.safetensors", "state.safetensors", "log.jsonl", "cache"
MIB = 2**20


def train(recipe: Recipe, device: str | None = None) -> int:
    """Write OUT/head.safetensors; 0, or 3 where some photographs could not be learned from."""
    kind = registry.load(registry.MASK_HEADS, recipe.head, "mask head")
    check_writable(recipe.out)
    runs = {run: Results(run, recipe.images) for run in (*recipe.runs, *recipe.validation)}
    lmm = load_lmm(recipe.model, device)
    segmenter = _sam(recipe.segmenter, device) if kind.redraws and recipe.segmenter is not None else None
    shape = head_shape(lmm, recipe.views)
    origins = _origins(recipe, lmm.model.config, segmenter)
    told = _told(recipe, shape, origins) | {"eyes": kind.needs_eyes}
    capturer = Capturer(lmm, shape, segmenter, recipe.question, kind.needs_eyes, told)
    torch.manual_seed(recipe.seed)
    more: dict[str, Any] = {} if segmenter is None else {"segmenter": segmenter.model}
    head: MaskHead = kind(shape, **recipe.head_settings, **more)
    failures: list[str] = []
    examples = [_captured(recipe, capturer, runs, some, failures) for some in (recipe.runs, recipe.validation)]
    if not examples[0]:
        raise ValueError(f"Nothing to learn from: {failures[0] if failures else 'the runs are empty'}.")
    _learn(recipe, head, *examples)
    save_head(recipe.out / HEAD, head, origins["lmm"], origins["segmenter"])
    print(f"{recipe.out / HEAD}: {recipe.steps} steps on {len(examples[0])} photographs.")
    for failure in failures:
        print(f"left out: {failure}")
    return 3 if failures else 0


def _learn(recipe: Recipe, head: MaskHead, examples: Sequence[Path], validation: Sequence[Path]) -> None:
    log = recipe.out / LOG
    bar = tqdm(total=recipe.steps, unit="step")

    def tell(step: int, loss: float) -> None:
        bar.update(step - bar.n)
        if step % recipe.save_steps == 0 or step == recipe.steps:
            line: dict[str, Any] = {"step": step, "loss": loss}
            if validation:
                ious = validated(head, validation, next(head.parameters()).device)
                line |= {"validation_iou": sum(ious) / len(ious), "n_phrases": len(ious)}
            add_lines(log, [line])

    with bar:
        fit(head, examples, recipe, recipe.out / STATE, tell)


def _captured(
    recipe: Recipe, capturer: Capturer, runs: dict[Path, Results], some: Sequence[Path], failures: list[str]
) -> list[Path]:
    """The files of the examples of some runs, each run's in a folder of its own."""
    found: list[Path] = []
    for run in some:
        folder = recipe.out / CACHE / f"{list(runs).index(run)}"
        folder.mkdir(parents=True, exist_ok=True)
        photographs: list[Photograph] = list(runs[run])
        failures += runs[run].failures
        for i, (path, failure) in enumerate(Cache(folder, capturer).filled(photographs)):
            if failure:
                failures.append(failure)
                continue
            if not found:
                size = path.stat().st_size / MIB
                print(f"{folder}: about {size * (len(photographs) - i):.0f} MiB, {size:.2f} a photograph.")
            found.append(path)
    return found


def _sam(name: str, device: str | None) -> SamFamily:
    segmenter = load_segmenter(name, device, "float32")
    if not isinstance(segmenter, SamFamily):
        raise ValueError(f"segmenter {name}: it has not SAM's parts, which the head trains; null trains none.")
    return segmenter


def _origins(recipe: Recipe, config: Any, segmenter: SamFamily | None) -> dict[str, Any]:
    lmm = Origin.of(recipe.model, "lmm", getattr(config, "_commit_hash", None))
    if segmenter is None or recipe.segmenter is None:
        return {"lmm": lmm, "segmenter": None}
    commit = getattr(segmenter.model.config, "_commit_hash", None)
    return {"lmm": lmm, "segmenter": Origin.of(recipe.segmenter, "segmenter", commit)}


def _told(recipe: Recipe, shape: HeadShape, origins: dict[str, Any]) -> dict[str, Any]:
    named = {what: None if origin is None else asdict(origin) for what, origin in origins.items()}
    return {"question": recipe.question, "shape": asdict(shape), **named}
