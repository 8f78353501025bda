"""`aas segment gcg|instance|expressions`: from stored attention to masks.

Two ways through the images. On a GPU, and with a large segmenter on a CPU, worker processes read the photographs and
the items and find the prompts, the main process encodes several photographs at once and decodes all phrases of one in
a batch, and one more process makes run lengths and writes. A small segmenter on a CPU leaves cores idle that way: there
each worker process does all of that for its own images, on one core.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from aas import rle
from aas.datasets.answers import read_answers
from aas.devices import default_device
from aas.pointing.masks import phrase_masks
from aas.presets import PRESETS
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.stages.segment_arguments import Segment
from aas.stages.segment_expressions import find_rows
from aas.stages.segment_jobs import SegmentJob, find_jobs, read_annotation
from aas.stages.segment_making import Made, Maker
from aas.stages.segment_results import SegmentResult, Writer
from aas.stages.workers import half_the_cores, in_workers, n_workers
from aas.store.merge import merge_instances
from aas.store.runs import RunFolder
from aas.text import harmless

AUTO_BATCH_SIZE = {"cuda": 8}  # elsewhere 1: on a CPU one photograph stays in the cache, four take twice as long each


def segment(arguments: Segment) -> int:
    """Fill the run folder; returns the exit code.

    Raises ValueError or OSError, before anything is written, where the arguments cannot work.
    """
    run = RunFolder(arguments.out, ".json")
    command = f"segment {arguments.task}"
    annotation = read_annotation(arguments.ref_anno) if arguments.ref_anno else None
    if arguments.answers is None:
        jobs, missing = find_jobs(arguments.attn, arguments.images, annotation)
    else:
        jobs, missing = find_rows(arguments.attn, arguments.images, read_answers(arguments.answers))
    if run.description_path.exists():
        run.begin(command, arguments.that_decide(), {})
    chunk = _chunk(jobs, arguments.num_chunks, arguments.chunk_idx)
    n_images = len(jobs) + len(missing)
    missing = missing if arguments.chunk_idx == 0 else []
    waiting = [job for job in chunk if not run.is_done(job.key)]
    if waiting:
        maker = Maker(arguments, annotation)
        segmenter = load_segmenter(arguments.segmenter, arguments.device or default_device(), arguments.dtype)
        maker.options = arguments.pointing(segmenter.mask_side)
        run.begin(command, arguments.that_decide(), _facts(arguments) | {"n_images": n_images})
    run.forget_failures({job.key for job in chunk} | {name for name, _ in missing})
    for name, reason in missing:
        run.fail(name, reason)
    n_failed = len(missing)
    if waiting:
        maker.jobs = waiting
        n_failed += _fill(run, maker, _Segmenting(arguments, run, segmenter))
    n_new = len(waiting) + len(missing) - n_failed
    print(f"{n_new} done, {len(chunk) - len(waiting)} were there, {n_failed} failed: {run.path}", file=sys.stderr)
    if arguments.task == "instance" and all(run.is_done(job.key) for job in jobs):
        print(f"{merge_instances(run)}", file=sys.stderr)
    return 3 if n_failed else 0


def _chunk(jobs: Sequence[SegmentJob], num_chunks: int, chunk_idx: int) -> list[SegmentJob]:
    """Jobs of one image stay together: it is encoded once for all of them."""
    numbers = {image: i for i, image in enumerate(dict.fromkeys(job.image for job in jobs))}
    return [job for job in jobs if numbers[job.image] % num_chunks == chunk_idx]


def _facts(arguments: Segment) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    inputs = {name: getattr(arguments, name) for name in ("attn", "images", "ref_anno", "answers")}
    preset = PRESETS[arguments.preset]
    facts: dict[str, Any] = {
        "inputs": {name: None if path is None else str(path) for name, path in inputs.items()},
        "preset": {"name": arguments.preset, "heads": preset.heads, "merge": arguments.merge_used},
    }
    if arguments.task == "instance" and arguments.categories == "present":
        facts["oracle"] = ORACLE
    return facts


ORACLE = (
    "categories are chosen among those that the ground truth has in each image, as the reference does: an oracle. "
    "--categories all does without."
)


@dataclass(frozen=True)
class _Segmenting:
    """From prompts to masks. `embeddings`: of the last batch, by photograph."""

    arguments: Segment
    run: RunFolder
    segmenter: Segmenter
    embeddings: dict[Path, ImageEmbedding | Exception] = field(default_factory=dict)

    def results(self, batch: Sequence[Made]) -> Iterator[tuple[str, SegmentResult | str]]:
        """Of each image its key, and its result or the reason why there is none."""
        self._encode({made.job.image: made.image for made in batch if made.pointed})
        for made in batch:
            if made.image is None:
                yield made.job.key, made.error
                continue
            embedding = self.embeddings[made.job.image] if made.pointed else None
            try:
                if isinstance(embedding, Exception):
                    raise embedding
                yield made.job.key, self._result(made, embedding)
            except Exception as error:  # whatever one image's trouble is, it costs nobody else's result
                yield made.job.key, f"{made.job.image}: {type(error).__name__}: {error}"

    def _encode(self, images: dict[Path, Any]) -> None:
        """Each photograph once: the expression before may have been about the same."""
        for path in self.embeddings.keys() - images.keys():
            del self.embeddings[path]
        new = [path for path in images if path not in self.embeddings]
        self.embeddings.update(zip(new, self._encoded([images[path] for path in new]), strict=True))

    def _encoded(self, images: Sequence[Any]) -> list[ImageEmbedding | Exception]:
        """Embeddings of uint8 [H, W, 3] images; where all at once fail (for want of memory, say), one by one."""
        try:
            return list(self.segmenter.encode(images))
        except Exception as error:
            return [error] if len(images) == 1 else [one for image in images for one in self._encoded([image])]

    def _result(self, made: Made, embedding: ImageEmbedding | None) -> SegmentResult:
        assert made.image is not None
        choice = None if self.arguments.more_masks else self.arguments.mask_choice
        masks = phrase_masks(self.segmenter, embedding, made.pointed, choice) if embedding is not None else []
        return SegmentResult(
            self.arguments.task,
            self.run.item_path(made.job.key),
            made.job.image_id,
            None if made.job.row is None else made.job.row.image,
            made.caption,
            made.question,
            made.image.shape[:2],
            [one.phrase for one in made.pointed],
            [one.point_xy for one in made.pointed],
            list(made.categories),
            [rle.packed(found.masks) for found in masks],
            [found.scores.tolist() for found in masks],
        )


def _fill(run: RunFolder, maker: Maker, segmenting: _Segmenting) -> int:
    """Returns the number of images that failed."""
    n_failed = 0
    with tqdm(total=len(maker), unit="image", smoothing=0.1) as progress:
        way = _by_images if _goes_by_images(segmenting) else _by_batches
        for key, reason in way(maker, segmenting):
            if reason is not None:
                n_failed += 1
                run.fail(key, harmless(reason))
            progress.update()
    return n_failed


def _goes_by_images(segmenting: _Segmenting) -> bool:
    segmenter = segmenting.segmenter
    is_small = getattr(segmenter, "is_small", False)  # a stranger's class may have the four names of the contract only
    return is_small and segmenter.device.type == "cpu" and segmenting.arguments.batch_size in (None, 1)


# ------------------------------------------------------------------------- a small segmenter on a CPU: by images


@dataclass(frozen=True)
class _WholeImages(Dataset):
    """Each entry is an image done: its key, and None or why it failed (an OSError: nothing can be written)."""

    maker: Maker
    segmenting: _Segmenting

    def __len__(self) -> int:
        return len(self.maker)

    def __getitem__(self, index: int) -> tuple[str, str | OSError | None]:
        ((key, result),) = self.segmenting.results([self.maker[index]])
        if isinstance(result, str):
            return key, result
        try:
            result.write()
        except OSError as error:
            return key, error
        return key, None


def _by_images(maker: Maker, segmenting: _Segmenting) -> Iterator[tuple[str, str | None]]:
    # torch gives each worker one thread; as many workers as torch would take threads.
    n = n_workers(segmenting.arguments.workers, len(maker), torch.get_num_threads())
    for key, reason in in_workers(_WholeImages(maker, segmenting), n):
        if isinstance(reason, OSError):
            raise reason
        yield key, reason


# ----------------------------------------------------------------------------------------- elsewhere: by batches


def _by_batches(maker: Maker, segmenting: _Segmenting) -> Iterator[tuple[str, str | None]]:
    arguments = segmenting.arguments
    size = arguments.batch_size or AUTO_BATCH_SIZE.get(segmenting.segmenter.device.type, 1)
    n = n_workers(arguments.workers, len(maker), half_the_cores())
    with Writer(in_process=n > 0) as writer:
        for batch in _batches(in_workers(maker, n), size):
            for key, result in segmenting.results(batch):
                if isinstance(result, SegmentResult):
                    writer.write(result)
                yield key, result if isinstance(result, str) else None


def _batches(made: Iterable[Made], size: int) -> Iterator[list[Made]]:
    batch: list[Made] = []
    for one in made:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
