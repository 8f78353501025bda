"""The way for an image, in steps: what needs no model, what the LMM says, what the segmenter finds."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from aas import devices
from aas.capture import MEAN_OF_ALL
from aas.choices import MaskChoice
from aas.confidence.judging import AnswerOrigin, Judge
from aas.ground.bands import asked_maps
from aas.ground.request import Asked, Request
from aas.grounding import Grounding
from aas.headed import HeadMasks
from aas.images import ImageLike, as_pixels, name_of
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.maps.blackbox import Blackbox
from aas.pointing.masks import PhraseMasks, masks_of_each
from aas.pointing.phrases import Pointed, PointingOptions, phrases_for, prompted
from aas.records import Answer, AttentionMaps, GroundedPhrase, Phrase
from aas.segmenters.base import Segmenter
from aas.segmenters.once import EncodedOnce
from aas.store.keys import quoted
from aas.store.results import labelled_points

if TYPE_CHECKING:
    from spacy.language import Language

    from aas.answering.answers import Served

AUTO_BATCH_SIZE = {"cuda": 16}
PhrasesOf = Callable[[Answer], Sequence[Phrase]]


@dataclass(eq=False, repr=False)
class Steps:
    """The models that are loaded, how they are used, and what they make of requests."""

    lmm: LMM
    segmenter: Segmenter
    pipeline: "Language"
    ask_options: AskOptions
    pointing: PointingOptions
    mask_choice: MaskChoice
    judge: Judge
    blackbox: Blackbox | None
    head: HeadMasks | None
    served: "Served | None"
    batch_size: int | None
    encoded: EncodedOnce = field(init=False)

    def __post_init__(self) -> None:
        self.encoded = EncodedOnce(self.segmenter)

    @property
    def is_small(self) -> bool:
        """Whether several of it fit side by side, and one core each serves them best."""
        return getattr(self.segmenter, "is_small", False) and devices.is_small(self.lmm.model)

    def images_at_once(self) -> int:
        """Images that the LMM answers in one batch."""
        return self.batch_size or AUTO_BATCH_SIZE.get(self.lmm.device.type, 1)

    def fed(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        """Each request when it can be prepared: with the server's answer, where a server answers and none is given."""
        if self.served is None:
            return ((request, None) for request in requests)
        kept = (request.to_read_twice() for request in requests)
        return self.served.fed(kept, lambda request: (request.source, request.question))

    def prepare(self, request: Request) -> Asked:
        """Everything that needs no model: reading, resizing. Raises ImageError for an unusable image."""
        image = as_pixels(request.source)
        asked = (request.question, request.answer, request.token_ids)
        return Asked(request, image, self.lmm.prepare(image, *asked, self.ask_options, request.history))

    def compute(self, batch: Sequence[Asked], phrases_of: PhrasesOf | None = None) -> list[Grounding]:
        """Answers all of `batch` at once and grounds the answers; either every answer is given, or none. `phrases_of`:
        which words of an answer, instead of its noun phrases."""
        return self._grounded(batch, self.lmm.run([one.prepared for one in batch], self.ask_options), phrases_of)

    def _grounded(
        self,
        batch: Sequence[Asked],
        said: list[tuple[Answer, AttentionMaps]],
        phrases_of: PhrasesOf | None = None,
    ) -> list[Grounding]:
        found = [self._phrases(answer, phrases_of) for answer, _ in said]
        if self.blackbox:
            said = [
                (answer, asked_maps(self.blackbox, self.lmm, one.image, answer, phrases, self.images_at_once()))
                for one, (answer, _), (phrases, _) in zip(batch, said, found, strict=True)
            ]
        pointed = [
            (self._prompted(one.image, *both, phrases), left_out)
            for one, both, (phrases, left_out) in zip(batch, said, found, strict=True)
        ]
        masks = self._masks(batch, [answer for answer, _ in said], [phrases for phrases, _ in pointed])
        return [
            self._grounding(one.request, one.image, *both, *found, of_phrases)
            for one, both, found, of_phrases in zip(batch, said, pointed, masks, strict=True)
        ]

    def _masks(
        self, batch: Sequence[Asked], answers: Sequence[Answer], pointed: Sequence[Sequence[Pointed]]
    ) -> Iterator[list[PhraseMasks]]:
        """Of each answer those of its phrases."""
        shown = {one.photograph: one.image for one, phrases in zip(batch, pointed, strict=True) if phrases}
        embeddings = self.encoded.of(shown)
        encoded = [embeddings.get(one.photograph) for one in batch]
        if self.head is None:
            return masks_of_each(self.segmenter, list(zip(encoded, pointed, strict=True)), self.mask_choice)
        return self.head.of_each(zip((one.prepared for one in batch), answers, pointed, encoded, strict=True))

    def ground(self, image: ImageLike, answer: Answer, attention: AttentionMaps) -> Grounding:
        """The second half alone: from an answer and its maps to masks.

        `image` as for a call (uint8 [H, W, 3] RGB is taken as it is); `attention.maps` float32 [tokens, h, w], one for
        each token of the answer. Raises ValueError for maps that keep layers or heads apart.
        """
        if self.head is not None:
            raise ValueError(
                "A head looks at the LMM while it reads the answer, not at stored maps: call the grounder."
            )
        if attention.maps.ndim != 3:
            raise ValueError("Grounding needs one map per token: capture the mean of layers and heads (keep='mean').")
        pixels = as_pixels(image)
        phrases, left_out = self._phrases(answer)
        pointed = self._prompted(pixels, answer, attention, phrases)
        asked = [(self.segmenter.encode([pixels])[0] if pointed else None, pointed)]
        (masks,) = masks_of_each(self.segmenter, asked, self.mask_choice)
        request = Request("0", image, answer.question, answer.text)
        return self._grounding(request, pixels, answer, attention, pointed, left_out, masks)

    def _phrases(
        self, answer: Answer, phrases_of: PhrasesOf | None = None
    ) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
        """Those to be pointed at, and the words of those left out."""
        if phrases_of is not None:
            return tuple(phrases_of(answer)), ()
        return phrases_for(self.pipeline, answer, self.pointing)

    def _prompted(
        self, pixels: np.ndarray, answer: Answer, attention: AttentionMaps, phrases: Sequence[Phrase]
    ) -> list[Pointed]:
        return prompted(phrases, answer, attention, self.pointing, pixels.shape[:2])

    def _grounding(
        self,
        request: Request,
        pixels: np.ndarray,
        answer: Answer,
        attention: AttentionMaps,
        pointed: Sequence[Pointed],
        left_out: tuple[str, ...],
        masks: Sequence[PhraseMasks],
    ) -> Grounding:
        grounded = with_masks(pointed, masks)
        sampling, source = self.ask_options.sampling, request.source
        is_given = request.answer is not None or request.token_ids is not None
        all_heads = self.ask_options.selection == MEAN_OF_ALL
        origin = AnswerOrigin(is_given, sampling.temperature if sampling else 0.0, all_heads)
        found = self.judge(answer, attention, [one.phrase for one in grounded], origin)
        if found is not None:
            both = zip(grounded, found.values, strict=True)
            grounded = tuple(replace(one, confidence=value) for one, value in both)
        kept = self.judge.kept(found, len(grounded))
        left_out += tuple(one.text for i, one in enumerate(grounded) if i not in kept)
        grounded = tuple(grounded[i] for i in kept)
        where = (request.place, self.lmm.name)
        kind = None if found is None else found.kind
        return Grounding(quoted(name_of(source)), pixels, answer, grounded, attention, left_out, *where, kind)


def with_masks(pointed: Sequence[Pointed], masks: Sequence[PhraseMasks]) -> tuple[GroundedPhrase, ...]:
    return tuple(_with_mask(*both) for both in zip(pointed, masks, strict=True))


def _with_mask(pointed: Pointed, found: PhraseMasks) -> GroundedPhrase:
    shown = labelled_points(pointed.prompt)
    return GroundedPhrase(
        pointed.phrase,
        pointed.map,
        pointed.point_xy,
        found.masks[0],
        float(found.scores[0]),
        tuple((x, y) for x, y, _ in shown),
        tuple(label for _, _, label in shown),
    )
