"""The three steps of `aas segment`, from an attention item to masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spacy.language import Language

from aas import rle
from aas.confidence.judging import Judge, Origin
from aas.engine.stage import Stage
from aas.images import read_image
from aas.lmms.prepared import Prepared
from aas.phrases.likelihood import token_probabilities
from aas.pointing.masks import PhraseMasks, phrase_masks
from aas.pointing.phrases import Pointed, PointingOptions, point_phrases, prompted
from aas.records import Answer, AttentionMaps
from aas.segmenters.base import ImageEmbedding
from aas.segmenters.once import EncodedOnce
from aas.stages.segment_categories import Categories, Category
from aas.stages.segment_expressions import phrases_of
from aas.stages.segment_head import Rereading
from aas.stages.segment_items import Attention
from aas.stages.segment_jobs import SegmentJob, image_of
from aas.stages.segment_options import Segment
from aas.stages.segment_results import SegmentResult
from aas.store.results import labelled_points
from aas.store.runs import RunFolder


@dataclass(frozen=True)
class PromptedImage:
    """A photograph uint8 [H, W, 3], what was said about it, and its phrases with their prompts; in the instance task
    also the category of each."""

    job: SegmentJob
    image: np.ndarray
    answer: Answer
    attention: AttentionMaps
    pointed: tuple[Pointed, ...]
    categories: tuple[Category, ...] = ()
    prepared: Prepared | None = None  # for the LMM, where a head looks at it


@dataclass(frozen=True)
class Segmenting(Stage[SegmentJob, PromptedImage, SegmentResult]):
    """From stored attention to masks."""

    options: Segment
    run: RunFolder
    attention: Attention
    pipeline: Language
    pointing: PointingOptions
    categories: Categories | None
    encoded: EncodedOnce
    judge: Judge
    origin: Origin
    head: Rereading | None = None

    def prepare(self, item: SegmentJob) -> PromptedImage:
        photograph = image_of(item)
        image = read_image(photograph)
        self.attention.check_photograph(item.item, photograph)
        answer, maps = self.attention.read(item.item, image.shape[:2])
        pointed = self._pointed(item, answer, maps, image.shape[:2])
        names: tuple[Category, ...] = ()
        if self.categories is not None:
            named = self.categories.of(item.image_id, answer.text, pointed)
            pointed, names = [one for one, _ in named], tuple(name for _, name in named)
        prepared = self.head.prepare(image, answer) if self.head and pointed else None
        return PromptedImage(item, image, answer, maps, tuple(pointed), names, prepared)

    def _pointed(
        self, item: SegmentJob, answer: Answer, maps: AttentionMaps, image_hw: tuple[int, int]
    ) -> list[Pointed]:
        if item.row is None:
            return point_phrases(self.pipeline, answer, maps, self.pointing, image_hw)[0]
        phrases = phrases_of(item.row, self.pipeline, answer, self.pointing.words)
        return prompted(phrases, answer, maps, self.pointing, image_hw)

    def compute(self, batch: Sequence[PromptedImage]) -> list[SegmentResult]:
        embeddings = self.encoded.of({one.job.image: one.image for one in batch if one.pointed})
        return [self._result(one, embeddings.get(one.job.image)) for one in batch]

    def _result(self, one: PromptedImage, embedding: ImageEmbedding | None) -> SegmentResult:
        masks = [] if embedding is None else self._masks(one, embedding)
        phrases = [pointed.phrase for pointed in one.pointed]
        scores = [float(found.scores[-1]) for found in masks]
        result = SegmentResult(
            self.options.task,
            self.run.item_path(one.job.key),
            one.job.image_id,
            None if one.job.row is None else one.job.row.image,
            one.answer.text,
            one.answer.question,
            one.image.shape[:2],
            phrases,
            [pointed.point_xy for pointed in one.pointed],
            list(one.categories),
            [rle.packed(found.masks) for found in masks],
            [found.scores.tolist() for found in masks],
            [labelled_points(pointed.prompt) for pointed in one.pointed],
            token_probabilities(one.answer, phrases),
        )
        return result.judged(self.judge, self.judge(one.answer, one.attention, phrases, scores, self.origin))

    def _masks(self, one: PromptedImage, embedding: ImageEmbedding) -> list[PhraseMasks]:
        if self.head is not None and one.prepared is not None:
            phrases = [pointed.phrase for pointed in one.pointed]
            return self.head.masks(one.prepared, one.answer, phrases, embedding)
        choice = None if self.options.more_masks else self.options.mask_choice
        return phrase_masks(self.encoded.segmenter, embedding, one.pointed, choice)

    def finish(self, item: SegmentJob, result: SegmentResult) -> None:
        result.write()
