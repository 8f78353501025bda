"""`aas segment gcg|instance`: from stored attention to masks.

Worker processes read the photographs and the items, find the phrases and their prompts; the segmenter encodes several
photographs at once and decodes all phrases of one in a batch; another process makes run lengths and writes.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from aas.geometry import padded_view, stretched_view
from aas.images import ImageError, read_image
from aas.mask_choice import CHOICES, MaskChoice
from aas.phrases.alignment import decode_with_spans
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import Words, load_pipeline
from aas.phrases.visible import TESTS, Kind
from aas.records import Answer, AttentionMaps, Phrase
from aas.reduce import PRESETS, Merge
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.store.atomic import write_text
from aas.store.items import REFERENCE_SUFFIX, read_item, read_reference_item
from aas.store.runs import RunFolder
from aas.tasks.merge import merge_instances
from aas.tasks.phrase_masks import (
    Pointed,
    PointingOptions,
    PromptKind,
    packed_masks,
    phrase_masks,
    point_phrases,
    run_lengths_of,
)
from aas.tasks.segment_jobs import Annotation, SegmentJob, find_jobs, image_of, read_annotation
from aas.view.text import harmless

Task = Literal["gcg", "instance"]
Fit = Literal["pad", "stretch"]
MAX_WAITING_WRITES = 16
AUTO_BATCH_SIZE = {"cuda": 8}  # elsewhere 1: on a CPU one photograph stays in the cache, four take twice as long each


@dataclass(frozen=True)
class Segment:
    """The arguments of a run."""

    task: Task
    attn: Path
    images: Path
    out: Path
    ref_anno: Path | None = None
    segmenter: str = "embedded"
    phrases: str = "embedded"
    preset: str = "paper"
    tokenizer: str | None = None
    fit: Fit = "pad"
    merge: Merge | None = None
    words: Words = "root"
    drop: tuple[Kind, ...] = ()
    prompt: PromptKind = "point"
    points: int = 1
    negative_points: int = 0
    mask_choice: MaskChoice = "last"
    categories: str = "present"
    category_thresh: float = 0.5
    more_masks: bool = False
    num_chunks: int = 1
    chunk_idx: int = 0
    batch_size: int | None = None
    device: str | None = None
    dtype: str = "auto"
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"Unknown preset {self.preset!r}. Known: {', '.join(PRESETS)}.")
        for option, value, known in (
            ("--mask-choice", self.mask_choice, CHOICES),
            ("--fit", self.fit, ("pad", "stretch")),
            ("--merge", self.merge or "mean", ("mean", "max", "first")),
            ("--words", self.words, ("root", "chunk")),
            ("--prompt", self.prompt, ("point", "mask")),
            *(("--drop", kind, tuple(TESTS)) for kind in self.drop),
        ):
            if value not in known:
                raise ValueError(f"{option} {value!r}: give {', '.join(known)}.")
        if not 0 <= self.chunk_idx < self.num_chunks:
            raise ValueError(
                f"--chunk-idx {self.chunk_idx} must be at least 0 and below --num-chunks {self.num_chunks}."
            )
        if self.task == "instance" and self.ref_anno is None:
            raise ValueError("`aas segment instance` needs --ref-anno, a COCO annotation: it gives ids and categories.")

    def pointing(self, mask_side: int) -> PointingOptions:
        merge = self.merge or PRESETS[self.preset].merge
        points = (self.points, self.negative_points)
        return PointingOptions(merge, self.words, self.drop, self.prompt, *points, mask_side)

    def that_decide(self) -> dict[str, Any]:
        """Those that decide what the results are; the others decide only when and where they are made."""
        decide = ["segmenter", "phrases", "preset", "merge", "words", "drop", "prompt", "points", "negative_points"]
        decide += ["mask_choice", "dtype", "tokenizer", "fit"]
        if self.task == "instance":
            decide += ["categories", "category_thresh", "more_masks"]
        return {name: getattr(self, name) for name in decide}


def segment(arguments: Segment) -> int:
    """Fill the run folder; returns the exit code.

    Raises ValueError or OSError, before anything is written, where the arguments cannot work.
    """
    run = RunFolder(arguments.out, ".json")
    command = f"segment {arguments.task}"
    annotation = read_annotation(arguments.ref_anno) if arguments.ref_anno else None
    jobs, missing = find_jobs(arguments.attn, arguments.images, annotation)
    if run.description_path.exists():
        run.begin(command, arguments.that_decide(), {})
    chunk = jobs[arguments.chunk_idx :: arguments.num_chunks]
    n_images = len(jobs) + len(missing)
    missing = missing if arguments.chunk_idx == 0 else []
    waiting = [job for job in chunk if not run.is_done(job.key)]
    writer = _Writer(n_items=len(waiting))
    if waiting:
        maker = _Maker(arguments, annotation)
        segmenter = load_segmenter(arguments.segmenter, arguments.device or _default_device(), arguments.dtype)
        maker.options = arguments.pointing(segmenter.mask_side)
        run.begin(command, arguments.that_decide(), _facts(arguments) | {"n_images": n_images})
    run.forget_failures({job.key for job in chunk} | {name for name, _ in missing})
    for name, reason in missing:
        run.fail(name, reason)
    n_failed = len(missing)
    if waiting:
        with writer:
            n_failed += _fill(arguments, run, maker, segmenter, waiting, writer)
    n_new = len(waiting) + len(missing) - n_failed
    print(f"{n_new} done, {len(chunk) - len(waiting)} were there, {n_failed} failed: {run.path}", file=sys.stderr)
    if arguments.task == "instance" and all(run.is_done(job.key) for job in jobs):
        print(f"{merge_instances(run)}", file=sys.stderr)
    return 3 if n_failed else 0


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _facts(arguments: Segment) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    inputs = {name: getattr(arguments, name) for name in ("attn", "images", "ref_anno")}
    preset = PRESETS[arguments.preset]
    facts: dict[str, Any] = {
        "inputs": {name: None if path is None else str(path) for name, path in inputs.items()},
        "preset": {"name": arguments.preset, "heads": preset.heads, "merge": arguments.merge or preset.merge},
    }
    if arguments.task == "instance" and arguments.categories == "present":
        facts["oracle"] = ORACLE
    return facts


ORACLE = (
    "categories are chosen among those that the ground truth has in each image, as the reference does: an oracle. "
    "--categories all does without."
)


# ------------------------------------------------------------------------------------------ worker processes


@dataclass(frozen=True)
class Made:
    """What a worker made of a job: a photograph with prompts, or the reason why there is none."""

    job: SegmentJob
    image: np.ndarray | None = None
    caption: str = ""
    question: str = ""
    pointed: tuple[Pointed, ...] = ()
    categories: tuple[tuple[int, str], ...] = ()  # id and name for each phrase of `pointed`, in the instance task
    error: str = ""


class _Maker(Dataset):
    """From a job to a photograph with its phrases and their prompts. Needs no segmenter."""

    def __init__(self, arguments: Segment, annotation: Annotation | None):
        self.arguments, self.annotation = arguments, annotation
        self.options = arguments.pointing(mask_side=256)  # which the segmenter decides
        self.pipeline = load_pipeline(arguments.phrases)
        self.jobs: Sequence[SegmentJob] = ()
        self.tokenizer = None
        if arguments.tokenizer is not None:
            from transformers import AutoTokenizer

            self.tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
        self.matcher: CategoryMatcher | None = None
        if arguments.task == "instance":
            self.category_ids, names = self._categories()
            self.matcher = CategoryMatcher(self.pipeline, names)

    def _categories(self) -> tuple[list[int], list[str]]:
        """Ids and names that phrases may be given: the annotation's, or those that a file lists."""
        assert self.annotation is not None
        listed = {entry["name"]: entry["id"] for entry in self.annotation.categories}
        if self.arguments.categories in ("present", "all"):
            wanted = list(listed)
        else:
            path = Path(self.arguments.categories)
            if not path.is_file():
                raise ValueError(f"--categories {self.arguments.categories!r}: give present, all, or a file of names.")
            wanted = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
            unknown = [name for name in wanted if name not in listed]
            if unknown:
                raise ValueError(f"--categories {path}: {unknown[0]!r} is no category of {self.arguments.ref_anno}.")
        if not wanted:
            raise ValueError(f"{self.arguments.ref_anno} lists no categories.")
        return [listed[name] for name in wanted], wanted

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> Made:
        job = self.jobs[index]
        try:
            return self.make(job)
        except (ImageError, ValueError) as error:
            return Made(job, error=str(error))
        except Exception as error:  # whatever one image's trouble is, it costs nobody else's result
            return Made(job, error=f"{job.image}: {type(error).__name__}: {error}")

    def make(self, job: SegmentJob) -> Made:
        image = read_image(image_of(job))
        answer, attention = self._read(job.item, image.shape[:2])
        pointed = point_phrases(self.pipeline, answer, attention, self.options, image.shape[:2])
        made = Made(job, image, answer.text, answer.question, tuple(pointed))
        return made if self.matcher is None else self._categorized(made)

    def _read(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        if path.suffix == REFERENCE_SUFFIX:
            return self._read_reference(path, image_hw)
        item = read_item(path)
        if item.image_hw != image_hw:
            raise ValueError(f"{path} is about an image of another size than the one in --images.")
        if item.attention.maps.ndim != 3:
            raise ValueError(f"{path} keeps layers or heads apart: segmenting needs one map per token (--keep mean).")
        return item.answer, item.attention

    def _read_reference(self, path: Path, image_hw: tuple[int, int]) -> tuple[Answer, AttentionMaps]:
        if self.tokenizer is None:
            raise ValueError(f"{path}: items of the reference hold ids only: name their tokenizer with --tokenizer.")
        _, token_ids, maps = read_reference_item(path)
        text, spans = decode_with_spans(self.tokenizer, token_ids)
        view = padded_view if self.arguments.fit == "pad" else stretched_view
        return Answer("", text, tuple(token_ids), tuple(spans)), AttentionMaps(maps, view(maps.shape[1:], image_hw))

    def _categorized(self, made: Made) -> Made:
        """Only the phrases that name a category, with it."""
        assert self.matcher is not None and self.annotation is not None
        among: Sequence[int] = range(len(self.category_ids))
        if self.arguments.categories == "present":
            present = self.annotation.present.get(made.job.image_id, frozenset())
            among = [i for i in among if self.category_ids[i] in present]
        kept, categories = [], []
        for one in made.pointed:
            best = self.matcher.best(_root_word(made.caption, one.phrase), among)
            if best is not None and best[1] >= self.arguments.category_thresh:
                kept.append(one)
                categories.append((self.category_ids[best[0]], self.matcher.names[best[0]]))
        return replace(made, pointed=tuple(kept), categories=tuple(categories))


def _root_word(caption: str, phrase: Phrase) -> str:
    return caption[slice(*phrase.root_span)]


def _all_made(maker: _Maker, jobs: Sequence[SegmentJob], n_workers: int) -> Iterator[Made]:
    maker.jobs = jobs
    if n_workers == 0:
        yield from (maker[i] for i in range(len(jobs)))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # they are forked
    unchanged: Any = _unchanged  # nothing is batched here
    yield from DataLoader(
        maker, batch_size=None, num_workers=n_workers, collate_fn=unchanged, multiprocessing_context="fork"
    )


def _unchanged(made: Made) -> Made:
    return made


# ---------------------------------------------------------------------------------------------------- masks


def _fill(
    arguments: Segment,
    run: RunFolder,
    maker: _Maker,
    segmenter: Segmenter,
    jobs: Sequence[SegmentJob],
    writer: "_Writer",
) -> int:
    """Returns the number of images that failed."""
    n_workers = arguments.workers
    if n_workers is None:
        n_workers = 0 if len(jobs) < 8 else min(8, max(1, (os.cpu_count() or 2) // 2))
    failures: list[str] = []

    def fail(made: Made, reason: str) -> None:
        failures.append(made.job.key)
        run.fail(made.job.key, harmless(reason))

    with tqdm(total=len(jobs), unit="image", smoothing=0.1) as progress:
        size = arguments.batch_size or AUTO_BATCH_SIZE.get(segmenter.device.type, 1)
        for batch in _batches(_all_made(maker, jobs, n_workers), size):
            usable = [made for made in batch if made.image is not None]
            for made in batch:
                if made.image is None:
                    fail(made, made.error)
            embeddings = iter(_encoded(segmenter, [made.image for made in usable if made.pointed]))
            for made in usable:
                embedding = next(embeddings) if made.pointed else None
                try:
                    if isinstance(embedding, Exception):
                        raise embedding
                    _segment_one(arguments, run, segmenter, made, embedding, writer)
                except OSError:
                    raise
                except Exception as error:
                    fail(made, f"{made.job.image}: {type(error).__name__}: {error}")
            progress.update(len(batch))
    return len(failures)


def _encoded(segmenter: Segmenter, images: Sequence[Any]) -> list[ImageEmbedding | Exception]:
    """Embeddings of uint8 [H, W, 3] images; where all at once fail (for want of memory, say), one by one."""
    try:
        return list(segmenter.encode(images))
    except Exception as error:
        return [error] if len(images) == 1 else [one for image in images for one in _encoded(segmenter, [image])]


def _batches(made: Iterable[Made], size: int) -> Iterator[list[Made]]:
    batch: list[Made] = []
    for one in made:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _segment_one(
    arguments: Segment,
    run: RunFolder,
    segmenter: Segmenter,
    made: Made,
    embedding: ImageEmbedding | None,
    writer: "_Writer",
) -> None:
    assert made.image is not None
    choice = None if arguments.more_masks else arguments.mask_choice
    masks = phrase_masks(segmenter, embedding, made.pointed, choice) if embedding is not None else []
    result = Unwritten(
        arguments.task,
        run.item_path(made.job.key),
        made.job.image_id,
        made.caption,
        made.question,
        made.image.shape[:2],
        [one.phrase for one in made.pointed],
        [one.point_xy for one in made.pointed],
        list(made.categories),
        [packed_masks(found.masks) for found in masks],
        [found.scores.tolist() for found in masks],
    )
    writer.write(result)


# --------------------------------------------------------------------------------------------------- writing


@dataclass(frozen=True)
class Unwritten:
    """One image's result on its way to the writer: of each phrase one mask, or three, packed to bits."""

    task: Task
    path: Path
    image_id: str | int
    caption: str
    question: str
    size_hw: tuple[int, int]
    phrases: list[Phrase]
    points_xy: list[tuple[int, int]]
    categories: list[tuple[int, str]]
    packed: list[np.ndarray]
    scores: list[list[float]]

    def write(self) -> None:
        content = self.gcg() if self.task == "gcg" else self.instances()
        write_text(self.path, json.dumps(content, ensure_ascii=False) + "\n")

    def gcg(self) -> dict[str, Any]:
        return {
            "image_id": self.image_id,
            "question": self.question,
            "caption": self.caption,
            "phrases": [phrase.text for phrase in self.phrases],
            "pred_masks": [run_lengths_of(packed, self.size_hw)[0] for packed in self.packed],
            "points": [list(point) for point in self.points_xy],
            "scores": [score[0] for score in self.scores],
            "spans": [list(phrase.span) for phrase in self.phrases],
            "token_indices": [list(phrase.token_indices) for phrase in self.phrases],
            "covers_point": [self._covers_point(i) for i in range(len(self.phrases))],
        }

    def _covers_point(self, i: int) -> bool:
        """Whether the mask of phrase `i` holds the point that was asked about: a segmenter may miss it."""
        x, y = self.points_xy[i]
        byte, bit = divmod(y * self.size_hw[1] + x, 8)
        return bool(self.packed[i][0, byte] >> (7 - bit) & 1)

    def instances(self) -> dict[str, Any]:
        """Without ids, which are given when all images are merged. Empty masks are dropped, as in the reference."""
        detections = []
        for i, phrase in enumerate(self.phrases):
            for mask, score in zip(run_lengths_of(self.packed[i], self.size_hw), self.scores[i], strict=True):
                area = int(coco_mask.area(mask))
                if area:
                    detections.append(
                        {
                            "image_id": self.image_id,
                            "category_id": self.categories[i][0],
                            "category_name": self.categories[i][1],
                            "noun_phrase": phrase.text,
                            "segmentation": mask,
                            "score": score,
                            "iscrowd": 0,
                            "area": area,
                            "point": list(self.points_xy[i]),
                        }
                    )
        return {"image_id": self.image_id, "caption": self.caption, "detections": detections}


class _Writer:
    """Makes run lengths and writes, in another process where there is much to do."""

    def __init__(self, n_items: int):
        # Started before any model is loaded: what is forked later would be large.
        self.pool = ProcessPoolExecutor(1, get_context("fork")) if n_items >= 8 and hasattr(os, "fork") else None
        self.waiting: deque[Future] = deque()
        if self.pool:
            self.pool.submit(int).result()

    def __enter__(self) -> "_Writer":
        return self

    def write(self, result: Unwritten) -> None:
        if self.pool is None:
            result.write()
            return
        self.waiting.append(self.pool.submit(result.write))
        while len(self.waiting) > MAX_WAITING_WRITES or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()

    def __exit__(self, kind: object, *_: object) -> None:
        if self.pool is None:
            return
        try:
            while self.waiting and kind is None:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
