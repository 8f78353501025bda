"""`aas segment gcg|instance|expressions`: from stored attention to masks."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from aas.available import all_here
from aas.confidence.judging import Judge
from aas.datasets.answers import read_answers
from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.engine.workers import plan_for
from aas.imports import collector_paused
from aas.phrases.parser import load_pipeline
from aas.pointing.phrases import PointingOptions
from aas.presets import preset_named
from aas.segmenters import load_segmenter
from aas.segmenters.once import EncodedOnce
from aas.stages.engines import engine_of
from aas.stages.options import PhraseOptions
from aas.stages.segment_categories import Categories
from aas.stages.segment_expressions import find_rows
from aas.stages.segment_head import rereading
from aas.stages.segment_items import Attention, origin_in
from aas.stages.segment_jobs import Annotation, SegmentJob, asked_of, files_of, find_jobs, read_annotation
from aas.stages.segment_options import Segment
from aas.stages.segmenting import Segmenting
from aas.store.merge import merge_instances
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
    attention = Attention(
        options.attn, preset_named(options.preset).heads, options.tokenizer, options.fit, options.maps
    )
    attention.check([job.item for job in jobs], options.min_confidence is not None)

    load = partial(_load, options, annotation, attention, len(work.items))
    code = fill(run, f"segment {options.task}", options.deciding(), work, load, engine=engine_of(options))
    if options.task == "instance" and all(run.is_done(job.key) for job in jobs):
        log.info("%s", merge_instances(run))
    return code


def _load(
    options: Segment, annotation: Annotation | None, attention: Attention, n_items: int, device: str | None = None
) -> tuple[Stage, Plan, dict[str, Any]]:
    all_here(None, options.segmenter, options.phrases)
    pipeline = load_pipeline(options.phrases)
    categories = Categories(options, annotation, pipeline) if annotation and options.task == "instance" else None
    segmenter = load_segmenter(options.segmenter, device or options.device, options.dtype)
    pointing = pointing_options(options, segmenter.mask_side)
    head = rereading(options, segmenter, device or options.device)
    run, encoded = RunFolder(options.out, ".json"), EncodedOnce(segmenter)
    model, origin = origin_in(options.attn)
    judge = Judge(model, pointing, options.min_confidence)
    stage = Segmenting(options, run, attention, pipeline, pointing, categories, encoded, judge, origin, head)
    place, is_small = segmenter.device.type, getattr(segmenter, "is_small", False)
    by_item = options.by_item(is_small and (head is None or head.is_small), place)
    batch_size = options.images_at_once(AUTO_BATCH_SIZE, place)
    return stage, plan_for(batch_size, options.workers, n_items, by_item), _facts(options)


@collector_paused()
def _work(options: Segment, annotation: Annotation | None) -> tuple[Work[SegmentJob], Sequence[SegmentJob]]:
    """This chunk's work, and the jobs of all chunks."""
    if options.answers is None:
        jobs, missing = find_jobs(options.attn, options.images, annotation)
    else:
        jobs, missing = find_rows(options.attn, options.images, read_answers(options.answers))
    if annotation and options.categories != "present":
        annotation = replace(annotation, present={})
    asked = asked_of(jobs, annotation if options.task == "instance" else None)
    whole = Work(jobs, missing, len(jobs) + len(missing), files=files_of, asked=asked)
    return whole.part(options.chunk, options.only), jobs


def _facts(options: Segment) -> dict[str, Any]:
    """What a run was made with, for those who read it later."""
    facts: dict[str, Any] = {
        **options.noted(),
        "preset": {
            "name": options.preset_used,
            "heads": preset_named(options.preset).heads,
            "merge": options.merge_used,
        },
    }
    if options.task == "instance" and options.categories == "present":
        facts["oracle"] = ORACLE
    return facts


def pointing_options(phrases: PhraseOptions, mask_side: int) -> PointingOptions:
    """How prompts are made for a segmenter whose coarse masks have `mask_side` cells."""
    points = (phrases.points, phrases.negative_points)
    chosen = (phrases.merge_used, phrases.words, phrases.drop, phrases.prompt)
    return PointingOptions(*chosen, *points, mask_side, phrases.reasoning, phrases.read_out)
