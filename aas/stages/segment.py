"""`aas segment gcg|instance|expressions`: from stored attention to masks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from aas import rle
from aas.available import all_here
from aas.datasets.answers import read_answers
from aas.devices import default_device
from aas.engine.local import fill
from aas.engine.stage import Plan, Stage, Work, chunk_of
from aas.engine.workers import half_the_cores, n_workers
from aas.images import read_image
from aas.phrases.parser import load_pipeline
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed, PointingOptions, point_phrases, prompted
from aas.presets import preset_named
from aas.records import Answer, AttentionMaps
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.segmenters.once import EncodedOnce
from aas.stages.options import MaskOptions, PhraseOptions
from aas.stages.segment_categories import Categories, Category
from aas.stages.segment_expressions import find_rows, phrases_of
from aas.stages.segment_items import Attention
from aas.stages.segment_jobs import Annotation, SegmentJob, find_jobs, image_of, read_annotation
from aas.stages.segment_options import Segment
from aas.stages.segment_results import SegmentResult
from aas.store.merge import merge_instances
from aas.store.results import labelled_points
from aas.store.runs import RunFolder

AUTO_BATCH_SIZE = {"cuda": 8}  # elsewhere 1: on a CPU one photograph stays in the cache, four take twice as long each
ORACLE = (
    "categories are chosen among those that the ground truth has in each image, as the reference does: an oracle. "
    "--categories all does without."
)

log = logging.getLogger(__name__)


def segment(options: Segment) -> int:
    """Fill the run folder; returns the exit code.

    Raises ValueError or OSError, before anything is written, where the options cannot work.
    """
    run = RunFolder(options.out, ".json")
    annotation = read_annotation(options.ref_anno) if options.ref_anno else None
    work, jobs = _work(options, annotation)
    attention = Attention(preset_named(options.preset).heads, options.tokenizer, options.fit)
    attention.check([job.item for job in jobs])

    def load() -> tuple[Stage, Plan, dict[str, Any]]:
        all_here(None, options.segmenter, options.phrases)
        pipeline = load_pipeline(options.phrases)
        categories = Categories(options, annotation, pipeline) if annotation and options.task == "instance" else None
        segmenter = load_segmenter(options.segmenter, options.device or default_device(), options.dtype)
        pointing = pointing_options(options, options, segmenter.mask_side)
        stage = Segmenting(options, run, attention, pipeline, pointing, categories, EncodedOnce(segmenter))
        return stage, plan_for(segmenter, options, len(work.items)), _facts(options)

    code = fill(run, f"segment {options.task}", options.deciding(), work, load)
    if options.task == "instance" and all(run.is_done(job.key) for job in jobs):
        log.info("%s", merge_instances(run))
    return code


def _work(options: Segment, annotation: Annotation | None) -> tuple[Work[SegmentJob], Sequence[SegmentJob]]:
    """This chunk's work, and the jobs of all chunks."""
    if options.answers is None:
        jobs, missing = find_jobs(options.attn, options.images, annotation)
    else:
        jobs, missing = find_rows(options.attn, options.images, read_answers(options.answers))
    chunk = chunk_of(jobs, options.num_chunks, options.chunk_idx)
    missing_here = missing if options.chunk_idx == 0 else []
    return Work(chunk, missing_here, len(jobs) + len(missing), options.num_chunks == 1), jobs


def _facts(options: Segment) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    facts: dict[str, Any] = {
        "inputs": {name: None if path is None else str(path) for name, path in options.inputs().items()},
        "preset": {
            "name": options.preset,
            "heads": preset_named(options.preset).heads,
            "merge": options.merge_used,
        },
    }
    if options.task == "instance" and options.categories == "present":
        facts["oracle"] = ORACLE
    return facts


def pointing_options(phrases: PhraseOptions, masks: MaskOptions, mask_side: int) -> PointingOptions:
    """How prompts are made for a segmenter whose coarse masks have `mask_side` cells."""
    n_points = masks.n_points(phrases.points)
    points = (n_points, phrases.negative_points)
    return PointingOptions(phrases.merge_used, phrases.words, phrases.drop, phrases.prompt, *points, mask_side)


def plan_for(segmenter: Segmenter, options: Segment, n_items: int) -> Plan:
    """On a GPU, and with a large segmenter on a CPU, worker processes prepare, this one computes, one more makes run
    lengths and writes. A small one on a CPU leaves cores idle that way: there each worker does all for its own images,
    as many as torch would take threads."""
    on_cpu = segmenter.device.type == "cpu"
    if getattr(segmenter, "is_small", False) and on_cpu and options.batch_size in ("auto", "1"):
        return Plan(1, n_workers(options.workers, n_items, torch.get_num_threads()), by_item=True)
    batch_size = options.images_at_once(AUTO_BATCH_SIZE, segmenter.device.type)
    return Plan(batch_size, n_workers(options.workers, n_items, half_the_cores()), finishes_elsewhere=True)


@dataclass(frozen=True)
class PromptedImage:
    """A photograph uint8 [H, W, 3], what was said about it, and its phrases with their prompts; in the instance task
    also the category of each."""

    job: SegmentJob
    image: np.ndarray
    answer: Answer
    pointed: tuple[Pointed, ...]
    categories: tuple[Category, ...] = ()


@dataclass(frozen=True)
class Segmenting(Stage[SegmentJob, PromptedImage, SegmentResult]):
    """From stored attention to masks."""

    options: Segment
    run: RunFolder
    attention: Attention
    pipeline: Any
    pointing: PointingOptions
    categories: Categories | None
    encoded: EncodedOnce

    def prepare(self, item: SegmentJob) -> PromptedImage:
        image = read_image(image_of(item))
        answer, maps = self.attention.read(item.item, image.shape[:2])
        pointed = self._pointed(item, answer, maps, image.shape[:2])
        if self.categories is None:
            return PromptedImage(item, image, answer, tuple(pointed))
        named = self.categories.of(item.image_id, answer.text, pointed)
        return PromptedImage(item, image, answer, tuple(one for one, _ in named), tuple(name for _, name in named))

    def _pointed(
        self, item: SegmentJob, answer: Answer, maps: AttentionMaps, image_hw: tuple[int, int]
    ) -> list[Pointed]:
        if item.row is None:
            return point_phrases(self.pipeline, answer, maps, self.pointing, image_hw)[0]
        phrases = phrases_of(item.row, self.pipeline, answer, self.pointing.words)
        return prompted(phrases, maps, self.pointing, image_hw)

    def compute(self, batch: Sequence[PromptedImage]) -> list[SegmentResult]:
        embeddings = self.encoded.of({one.job.image: one.image for one in batch if one.pointed})
        return [self._result(one, embeddings.get(one.job.image)) for one in batch]

    def _result(self, one: PromptedImage, embedding: ImageEmbedding | None) -> SegmentResult:
        choice = None if self.options.more_masks else self.options.mask_choice
        masks = phrase_masks(self.encoded.segmenter, embedding, one.pointed, choice) if embedding is not None else []
        return SegmentResult(
            self.options.task,
            self.run.item_path(one.job.key),
            one.job.image_id,
            None if one.job.row is None else one.job.row.image,
            one.answer.text,
            one.answer.question,
            one.image.shape[:2],
            [pointed.phrase for pointed in one.pointed],
            [pointed.point_xy for pointed in one.pointed],
            list(one.categories),
            [rle.packed(found.masks) for found in masks],
            [found.scores.tolist() for found in masks],
            [labelled_points(pointed.prompt) for pointed in one.pointed],
        )

    def finish(self, item: SegmentJob, result: SegmentResult) -> None:
        result.write()
