"""The three steps of `aas segment`, from an attention item to masks."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from spacy.language import Language

from aas import rle
from aas.confidence.judging import AnswerOrigin, Judge
from aas.engine.stage import Stage
from aas.images import read_image
from aas.lmms.prepared import Prepared
from aas.phrases.likelihood import token_probabilities
from aas.pointing.masks import PhraseMasks, masks_of_each
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
    origin: AnswerOrigin
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
        found = self._masks(batch, embeddings)
        return [self._result(*both) for both in zip(batch, found, strict=True)]

    def _result(self, one: PromptedImage, masks: Sequence[PhraseMasks]) -> SegmentResult:
        phrases = [here.phrase for here in one.pointed]
        found = self.judge(one.answer, one.attention, phrases, self.origin)
        kept = self.judge.kept(found, len(phrases))
        left_out = tuple(phrase.text for i, phrase in enumerate(phrases) if i not in kept)
        pointed, masks, phrases = [one.pointed[i] for i in kept], [masks[i] for i in kept], [phrases[i] for i in kept]
        return SegmentResult(
            self.options.task,
            self.run.item_path(one.job.key),
            one.job.image_id,
            None if one.job.row is None else one.job.row.image,
            one.answer.text,
            one.answer.question,
            one.image.shape[:2],
            phrases,
            [here.point_xy for here in pointed],
            [one.categories[i] for i in kept if one.categories],
            [rle.packed(candidates.masks) for candidates in masks],
            [candidates.scores.tolist() for candidates in masks],
            [labelled_points(here.prompt) for here in pointed],
            token_probabilities(one.answer, phrases),
            None if found is None else tuple(found.values[i] for i in kept),
            None if found is None else found.kind,
            None if self.judge.least is None else left_out,
        )

    def _masks(
        self, batch: Sequence[PromptedImage], embeddings: Mapping[Hashable, ImageEmbedding]
    ) -> Iterator[list[PhraseMasks]]:
        """Of each photograph those of its phrases."""
        encoded = [embeddings.get(one.job.image) for one in batch]
        if self.head is None:
            choice = None if self.options.more_masks else self.options.mask_choice
            asked = [(embedding, one.pointed) for one, embedding in zip(batch, encoded, strict=True)]
            return masks_of_each(self.encoded.segmenter, asked, choice)
        told = zip(batch, encoded, strict=True)
        return self.head.masks.of_each((one.prepared, one.answer, one.pointed, embedding) for one, embedding in told)

    def finish(self, item: SegmentJob, result: SegmentResult) -> None:
        result.write()
