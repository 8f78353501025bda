"""From a recipe to a head: capture, learn, measure, save."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from accelerate import Accelerator

from aas import registry
from aas.heads.features import HeadShape
from aas.heads.head import MaskHead
from aas.heads.stored import save_head
from aas.lmms import load_lmm
from aas.lmms.phrase_features import head_shape
from aas.segmenters import load_segmenter
from aas.segmenters.sam_family import SamFamily
from aas.store.atomic import check_writable
from aas.store.origin import Origin
from aas.text import harmless
from aas.training.cache import Cache, Capturer
from aas.training.data import Lesson, Source
from aas.training.examples import Cached, Examples, Live
from aas.training.fit import fit
from aas.training.recipe import Recipe
from aas.training.watch import Watch, check_tensorboard

HEAD, STATE, CACHE = "head.safetensors", "state.safetensors", "cache"
MIB = 2**20
SHOWN_FAILURES = 10
Found = tuple[Examples, Sequence[Lesson]]  # examples, and the lessons that they are of


def train(recipe: Recipe, device: str | None = None) -> int:
    """Write OUT/head.safetensors; 0, or 3 where some photographs could not be learned from. Of several processes the
    first one writes and tells."""
    kind = registry.load(registry.MASK_HEADS, recipe.head, "mask head")
    check_tensorboard(recipe)
    check_writable(recipe.out)
    learned, measured = recipe.sources()
    recipe.out.mkdir(parents=True, exist_ok=True)
    failures = [problem for source in (*learned, *measured) for problem in source.problems]
    lmm = load_lmm(recipe.model, device)
    segmenter = _sam(recipe.segmenter, device) if kind.redraws and recipe.segmenter is not None else None
    shape = head_shape(lmm, recipe.views)
    origins = _origins(recipe, lmm.model.config, segmenter)
    told = _told(recipe, shape, origins) | {"eyes": kind.needs_eyes}
    if kind.chooses:
        told |= {"maps": kind.sources, "proposals": True}
    capturer = Capturer(lmm, shape, segmenter, recipe.question, kind, told)
    torch.manual_seed(recipe.seed)
    more: dict[str, Any] = {} if segmenter is None else {"segmenter": segmenter.model}
    head: MaskHead = kind(shape, **recipe.head_settings, **more)
    examples, validation = (
        _found(recipe, capturer, sources, number, failures)
        for sources, number in ((learned, 0), (measured, len(learned)))
    )
    if not len(examples[0]):
        raise ValueError(f"Nothing to learn from: {failures[0] if failures else 'no photograph is there'}.")
    processes = Accelerator(mixed_precision=recipe.precision)
    recipe = recipe.for_photographs(len(examples[0]), processes.num_processes)
    _learn(recipe, head, examples[0], validation, processes.is_main_process)
    failures += _failed(examples[0]) + _failed(validation[0])
    if not processes.is_main_process:
        return 0  # a launcher ends all processes where one of them fails, and the first one still writes
    save_head(recipe.out / HEAD, head, origins["lmm"], origins["segmenter"])
    print(f"{recipe.out / HEAD}: {recipe.steps} steps on {len(examples[0])} photographs.")
    _say(failures)
    return 3 if failures else 0


def _learn(recipe: Recipe, head: MaskHead, examples: Examples, validation: Found, is_first: bool) -> None:
    if not is_first:
        fit(head, examples, recipe, recipe.out / STATE)
        return
    watch = Watch(recipe, head, *validation)
    try:
        fit(head, examples, recipe, recipe.out / STATE, watch)
    finally:
        watch.close()


def _found(recipe: Recipe, capturer: Capturer, sources: Sequence[Source], number: int, failures: list[str]) -> Found:
    """The examples of some sources, each source's in a folder of its own, numbered from `number`."""
    if not recipe.cache:
        lessons = [lesson for source in sources for lesson in source.lessons]
        return Live(lessons, capturer), lessons
    caches = [Cache(recipe.out / CACHE / f"{i}", capturer) for i in range(number, number + len(sources))]
    pairs = list(zip(caches, sources, strict=True))
    n_new = sum(not cache.path(lesson).is_file() for cache, source in pairs for lesson in source.lessons)
    paths: list[Path] = []
    kept: list[Lesson] = []
    for cache, source in pairs:
        cache.folder.mkdir(parents=True, exist_ok=True)
        for lesson, (path, failure) in zip(source.lessons, cache.filled(source.lessons), strict=True):
            if failure:
                failures.append(failure)
                continue
            if n_new and not paths:
                _say_size(path, n_new)
            paths.append(path)
            kept.append(lesson)
    return Cached(paths), kept


def _say_size(path: Path, n: int) -> None:
    """Of `n` more files of the cache, by its first one. ValueError where the disk does not hold them."""
    folder, size = path.parents[1], path.stat().st_size / MIB
    print(f"{folder}: about {size * n:.0f} MiB more, {size:.2f} a photograph.")
    free = disk_usage(folder).free / MIB
    if size * (n - 1) > free:
        raise ValueError(
            f"{folder}: the disk has {free:.0f} MiB left. Say `cache: false`, or n_photographs of each dataset."
        )


def _failed(examples: Examples) -> list[str]:
    return list(examples.failures.values()) if isinstance(examples, Live) else []


def _say(failures: Sequence[str]) -> None:
    for failure in failures[:SHOWN_FAILURES]:
        print(f"left out: {harmless(failure)}")
    if len(failures) > SHOWN_FAILURES:
        print(f"left out: … and {len(failures) - SHOWN_FAILURES} more")


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
