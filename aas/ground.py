"""The whole way for an image: ask, find the noun phrases, point, segment."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from aas import devices
from aas.asking import Asking, How, ask_options, told_apart
from aas.available import all_here
from aas.capture import MEAN_OF_ALL
from aas.choices import (
    HEAD_THRESHOLD,
    Dtype,
    Keep,
    Kind,
    MaskChoice,
    Merge,
    PresetName,
    PromptKind,
    ReadOut,
    Words,
    check,
)
from aas.confidence.judging import AnswerOrigin, Judge
from aas.engine.local import carry_out
from aas.engine.stage import Plan, Stage
from aas.geometry import stretched_view
from aas.grounding import Grounding
from aas.headed import WITH_ADAPTER, HeadMasks
from aas.images import ImageLike, as_pixels, name_of
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, History, Prepared
from aas.lmms.yes_no import yes_probabilities
from aas.maps import DEFAULT, names_of, source_named
from aas.maps.blackbox import Blackbox
from aas.photographs import File, Member, file_of
from aas.phrases.parser import load_pipeline
from aas.pointing.masks import PhraseMasks, masks_of_each, phrase_masks
from aas.pointing.phrases import Pointed, PointingOptions, phrases_for, prompted
from aas.presets import DEFAULT_QUESTION, LEFT_OUT, n_points_for, preset_named
from aas.records import Answer, AttentionMaps, GroundedPhrase, Phrase
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.segmenters.once import EncodedOnce
from aas.store.keys import quoted
from aas.store.results import labelled_points
from aas.streaming import Event, Tell, Telling, pulled

if TYPE_CHECKING:
    import torch
    from spacy.language import Language
    from transformers import PreTrainedModel

    from aas.answering.answers import Said, Served

AUTO_BATCH_SIZE = {"cuda": 16}
PhrasesOf = Callable[[Answer], Sequence[Phrase]]


class GroundingError(ValueError):
    """What stands in a list of groundings for an image that could not be grounded; the message says why."""


@dataclass(frozen=True)
class Request:
    """An image and what is asked, or said, about it. `key`: its place among others; `history`: what was asked about it
    before, and answered."""

    key: str
    source: ImageLike
    question: str
    answer: str | None = None
    token_ids: tuple[int, ...] | None = None
    history: History = ()

    @property
    def image(self) -> File:
        """A name for messages; where it is a file, that."""
        if isinstance(self.source, Member):
            return self.source
        return file_of(str(self.source) if isinstance(self.source, (str, Path)) else self.key)

    @property
    def place(self) -> str | None:
        """The image's path or URL; None of pixels and bytes."""
        return str(self.source) if isinstance(self.source, (str, Path, Member)) else None

    def answered(self, said: "Said") -> "Request":
        """With the answer that a server gives."""
        return replace(self, answer=said.text, token_ids=said.token_ids)


@dataclass(frozen=True)
class Asked:
    """A photograph uint8 [H, W, 3] and a question, ready for the LMM."""

    request: Request
    image: np.ndarray
    prepared: Prepared

    @property
    def photograph(self) -> object:
        """The same for all requests about one photograph."""
        return self.request.place or id(self.request.source)


class Grounder:
    """Loads the three models once, then grounds images.

        grounder = Grounder()
        grounding = grounder("photo.jpg", "What is on the table?")

    `model`, `segmenter` and `phrases` are `embedded`, a Hugging Face id, a local folder, a checkpoint file of
    segment-anything (segmenter), or the name of a spaCy pipeline (phrases); or what is loaded already: a model of
    transformers with its `processor`, an object with the segmenters' four names, a spaCy pipeline. `base`: the base
    LLM, where `model` is a LoRA in LLaVA's own format. `adapter`: a peft LoRA to merge. `device`, `dtype`, `quantize`
    and `device_map`: how the LMM is loaded; the segmenter shares the device, and computes in `segmenter_dtype`.

    `preset`: `paper`, `reference-2024` or `reference-2025`; it says which heads count and how the maps of a phrase's
    tokens are merged, unless `heads` and `merge` do. `layers`, `alignment`, `view`: which attention counts. `maps`:
    names of map sources, `"tam"` or a list, the first of which points (docs/maps.md); `read_out`: the first point is
    the map's `argmax`, the `centroid` of what is above its mean, or inside of the largest such `region`.
    `max_new_tokens`, `temperature`, `top_p`, `seed`: how the LMM answers. `words`: tokens of a phrase's `root` or of
    the whole `chunk`; `drop`: phrases that are left out, by default pronouns and the unseen ("the image"), () for none;
    `reasoning`: ground what the model says between `<think>` and `</think>` too.
    `prompt`: `point`s, `n_points` at the peaks and `n_negative` at the troughs of a phrase's map (by default one peak,
    and three with the embedded segmenter), or the map as a `mask`. `mask_choice`: `last`, `best-score` or
    `best-attention`. `head`: a mask head that was trained on this LMM, by file or name (docs/heads.md), which makes
    the masks instead, of pixels of more than `head_threshold`. `min_confidence`: phrases of less are left out
    (docs/maps.md). `batch_size`: images of a list that the LMM answers at once.
    `answers_from`: a server that answers instead, `http://HOST:PORT/v1`, with its `answers_model` (by default the one
    that it has), `in_flight` questions at once; the LMM reads its answers (docs/answers.md).

    Raises ValueError or FileNotFoundError, in one line, for what cannot be loaded.
    """

    def __init__(
        self,
        model: "str | PreTrainedModel | LMM" = "embedded",
        segmenter: str | Segmenter = "embedded",
        phrases: "str | Language" = "embedded",
        *,
        device: "str | torch.device | None" = None,
        segmenter_dtype: Dtype = "auto",
        preset: PresetName = "paper",
        merge: Merge | None = None,
        words: Words = "root",
        drop: Sequence[Kind] = LEFT_OUT,
        reasoning: bool = False,
        prompt: PromptKind = "point",
        n_points: int | None = None,
        n_negative: int = 0,
        read_out: ReadOut = "argmax",
        mask_choice: MaskChoice = "last",
        head: str | Path | None = None,
        head_threshold: float = HEAD_THRESHOLD,
        min_confidence: float | None = None,
        batch_size: int | None = None,
        answers_from: str | None = None,
        answers_model: str | None = None,
        in_flight: int = 16,
        **how: Unpack[How],
    ):
        check("mask_choice", mask_choice, MaskChoice)
        if head is not None and how.get("adapter"):
            raise ValueError(WITH_ADAPTER)
        self.mask_choice, self.batch_size = mask_choice, batch_size
        named, (asking, loading) = preset_named(preset), told_apart(how)
        if asking.get("heads") is None:
            asking["heads"] = named.heads
        self.blackbox = _asking(asking)
        self.ask_options = ask_options(**asking)
        called = ("" if loading.get("adapter") else _name(model), _name(segmenter))
        points = (n_points_for(called[1], n_points), n_negative)
        chosen = (merge or named.merge, words, tuple(drop), prompt)
        pointing = PointingOptions(*chosen, *points, reasoning=reasoning, read_out=read_out)
        served = _served_by(answers_from, answers_model, in_flight)
        if head is not None:  # rules of confidence were measured on the segmenter's own scores
            called = (called[0], "")
        self.judge = Judge(*called, pointing, mask_choice, min_confidence)
        all_here(model, segmenter, phrases)
        self.pipeline = load_pipeline(phrases)
        place = device if isinstance(model, str | Path) else device or model.device  # what is loaded stays where it is
        self.segmenter = load_segmenter(segmenter, place, segmenter_dtype)
        self.pointing = replace(pointing, mask_side=self.segmenter.mask_side)
        self.encoded = EncodedOnce(self.segmenter)
        self.lmm = load_lmm(model, device if isinstance(model, str | Path) else None, **loading)
        self.lmm.check_options(self.ask_options)
        self.head = None if head is None else HeadMasks(head, self.lmm, self.segmenter, segmenter, head_threshold)
        self.served = served(self.lmm, self.ask_options) if served else None
        self._turn = RLock()  # an LMM that is watched answers one question at a time

    # ------------------------------------------------------------------------------------------------- asking

    @overload
    def __call__(self, image: ImageLike, question: str | None = None, answer: str | None = None) -> Grounding: ...
    @overload
    def __call__(
        self, image: list[ImageLike], question: str | None = None, answer: str | None = None
    ) -> list[Grounding | GroundingError]: ...
    @overload
    def __call__(
        self, image: ImageLike, question: list[str], answer: None = None
    ) -> list[Grounding | GroundingError]: ...
    @overload
    def __call__(
        self, image: ImageLike, question: str | None, answer: list[str]
    ) -> list[Grounding | GroundingError]: ...

    def __call__(self, image: Any, question: Any = None, answer: Any = None) -> Any:
        """Ask about an image and ground the answer; with `answer` the given words are grounded (teacher forcing).

        An image is a path, a URL, the bytes of a file, an open file, a PIL image, an array uint8 [H, W, 3] RGB (others
        are converted, or refused with the conversion named), or a tensor [3, H, W]. Raises ImageError for an unusable
        one.

        A list of images, questions or answers gives a list of groundings in its order: images are answered in batches,
        and one photograph is encoded once for all its answers. There an image that cannot be grounded is a
        GroundingError in the list, and costs no other.
        """
        asked = question or DEFAULT_QUESTION
        with self._turn:
            if isinstance(image, list):
                return self._all([Request(str(i), one, asked, answer) for i, one in enumerate(image)])
            if isinstance(question, list):
                return self._all([Request(str(i), image, one) for i, one in enumerate(question)])
            if isinstance(answer, list):
                return self._all([Request(str(i), image, asked, one) for i, one in enumerate(answer)])
            return self.compute([self._ready(Request("0", image, asked, answer))])[0]

    def stream(self, image: ImageLike, question: str | None = None, history: History = ()) -> Iterator[Event]:
        """The same while the model writes: the answer's text in pieces (str), each phrase (GroundedPhrase) when
        something is written behind it, and at the end the Grounding, equal to that of a call.

        A phrase's `span` lies in the text that was told before it. Its map is relative to the words until then, and
        the parser has read no further: the Grounding at the end may have a better mask of it, or read other phrases,
        and has their confidence. Each of the Grounding's phrases was told once. Where the whole answer is needed
        (alignment "self", other map sources, `min_confidence`) phrases come when it is there. Another call waits until
        the answer is written; the iterator may be left, or closed, at any time. `history`: earlier questions about the
        image and their answers, which the model is shown before this one.

        Raises as a call does: ImageError at once.
        """
        if history and self.served is not None:
            raise ValueError("A server that answers is asked each question alone: leave `history` out.")
        asked = self._ready(Request("0", image, question or DEFAULT_QUESTION, history=history))
        return pulled(lambda tell: self._tell(asked, tell))

    def _tell(self, asked: Asked, tell: Tell[Event]) -> None:
        @cache  # when the first phrase wants it
        def embedding() -> ImageEmbedding:
            return self.encoded.of({asked.photograph: asked.image})[asked.photograph]

        def grounded(pointed: Sequence[Pointed]) -> tuple[GroundedPhrase, ...]:
            return _grounded(pointed, phrase_masks(self.segmenter, embedding(), pointed, self.mask_choice))

        telling = Telling(tell, self.pipeline, self.pointing, asked.image.shape[:2], grounded)
        # Maps that are asked for phrase by phrase are none of the answer's attention; nor is it known who is left out.
        # A head looks at the whole answer.
        is_late = self.blackbox is not None or self.judge.least is not None or self.head is not None
        hear = (lambda answer, _: telling.hear(answer, None)) if is_late else telling.hear
        with self._turn:
            said = self.lmm.run([asked.prepared], self.ask_options, hear)
            telling.end(self._grounded([asked], said)[0])

    def fed(self, requests: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        """Each request when it can be prepared: with the server's answer, where a server answers and none is given."""
        if self.served is None:
            return ((request, None) for request in requests)
        return self.served.fed(map(_to_read_twice, requests), lambda request: (request.source, request.question))

    def _ready(self, request: Request) -> Asked:
        """One alone, ready for the LMM."""
        ((request, error),) = [(request, None)] if request.answer is not None else self.fed([request])
        if error is not None:
            raise error
        return self.prepare(request)

    def _all(self, requests: Sequence[Request]) -> list[Grounding | GroundingError]:
        collecting = _Collecting(self, all(request.answer is not None for request in requests))
        for request, reason in carry_out(collecting, requests, Plan(self.images_at_once())):
            if reason is not None:
                collecting.found[request.key] = GroundingError(reason)
        return [collecting.found[request.key] for request in requests]

    @property
    def is_small(self) -> bool:
        """Whether several of it fit side by side, and one core each serves them best."""
        return getattr(self.segmenter, "is_small", False) and devices.is_small(self.lmm.model)

    def images_at_once(self) -> int:
        """Images that the LMM answers in one batch."""
        return self.batch_size or AUTO_BATCH_SIZE.get(self.lmm.device.type, 1)

    def attention(
        self, image: ImageLike, question: str | None = None, answer: str | None = None, keep: Keep = "heads"
    ) -> tuple[Answer, AttentionMaps]:
        """The answer and its attention, kept apart: maps float32 [layers, heads, tokens, h, w], or with `keep="layers"`
        [layers, tokens, h, w], over `.view`."""
        check("keep", keep, Keep)
        selection = replace(self.ask_options.selection, keep=keep)
        options = replace(self.ask_options, selection=selection, maps=(DEFAULT,))
        with self._turn:
            return self.lmm.ask(as_pixels(image), question or DEFAULT_QUESTION, answer, options)

    # ------------------------------------------------------------------------------------------------ in steps

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
                (answer, self._asked_maps(one.image, answer, phrases))
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

    def _asked_maps(self, pixels: np.ndarray, answer: Answer, phrases: Sequence[Phrase]) -> AttentionMaps:
        """Of each phrase, asked band by band."""
        assert self.blackbox is not None
        views, n = self.blackbox.views(pixels), self.images_at_once()
        yes = []
        for phrase in phrases:
            asked = [self.lmm.prepare(view, self.blackbox.question(phrase.text)) for view in views]
            parts = [yes_probabilities(self.lmm, asked[i : i + n]) for i in range(0, len(asked), n)]
            yes.append(np.concatenate(parts))
        height, width = pixels.shape[:2]
        view = stretched_view((self.blackbox.n_bands, self.blackbox.n_bands), (height, width))
        return self.blackbox.maps(answer, phrases, np.array(yes), view)

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
        grounded = _grounded(pointed, masks)
        sampling, source = self.ask_options.sampling, request.source
        is_given = request.answer is not None or request.token_ids is not None
        all_heads = self.ask_options.selection == MEAN_OF_ALL
        origin = AnswerOrigin(is_given, sampling.temperature if sampling else 0.0, all_heads)
        phrases, scores = [one.phrase for one in grounded], [one.score for one in grounded]
        found = self.judge(answer, attention, phrases, scores, origin)
        if found is not None:
            both = zip(grounded, found.values, strict=True)
            grounded = tuple(replace(one, confidence=value) for one, value in both)
        kept = self.judge.kept(found, len(grounded))
        left_out += tuple(one.text for i, one in enumerate(grounded) if i not in kept)
        grounded = tuple(grounded[i] for i in kept)
        where = (request.place, self.lmm.name)
        kind = None if found is None else found.kind
        return Grounding(quoted(name_of(source)), pixels, answer, grounded, attention, left_out, *where, kind)


def _name(model: object) -> str:
    """Of what is loaded already, that by which aas loaded it; empty for what came from elsewhere."""
    return model if isinstance(model, str) else str(getattr(model, "loaded_as", ""))


def _asking(asking: Asking) -> Blackbox | None:
    """The map source that asks about phrases, where there is one; `asking` then is without it."""
    names = names_of(asking.get("maps", DEFAULT))
    sources = [source for source in map(source_named, names) if isinstance(source, Blackbox)]
    if not sources:
        return None
    if len(names) > 1:
        raise ValueError("--maps: blackbox has a grid of its own, so that no other source goes with it.")
    asking["maps"] = DEFAULT
    return sources[0]


def _served_by(address: str | None, model: str | None, in_flight: int) -> "Callable[[LMM, AskOptions], Served] | None":
    """The server, looked at before any model is loaded; its client is not imported for those who have none."""
    if address is None:
        return None
    from aas.answering.answers import Served
    from aas.answering.server import server_at

    return partial(Served, server_at(address, model, in_flight))


def _to_read_twice(request: Request) -> Request:
    """An open file is read once: for the server and here, its content stands for it."""
    if isinstance(request.source, Member) or not hasattr(request.source, "read"):
        return request
    content = request.source.read()
    return replace(request, source=content) if isinstance(content, bytes) else request


def _grounded(pointed: Sequence[Pointed], masks: Sequence[PhraseMasks]) -> tuple[GroundedPhrase, ...]:
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


class ByGrounder(Stage[Request, Asked, Grounding]):
    """The two steps that a grounder makes of a request; a subclass says what becomes of the grounding."""

    window_batches = 4

    def __init__(self, grounder: Grounder):
        self.grounder = grounder

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        return self.grounder.fed(items)

    def prepare(self, item: Request) -> Asked:
        return self.grounder.prepare(item)

    def length(self, prepared: Asked) -> int:
        return prepared.prepared.length

    def compute(self, batch: Sequence[Asked]) -> list[Grounding]:
        return self.grounder.compute(batch)


class _Collecting(ByGrounder):
    """Keeps groundings, and what went wrong, by the requests' keys."""

    def __init__(self, grounder: Grounder, is_given: bool):
        super().__init__(grounder)
        self.is_given = is_given
        self.found: dict[str, Grounding | GroundingError] = {}

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        return ((item, None) for item in items) if self.is_given else super().fed(items)

    def finish(self, item: Request, result: Grounding) -> None:
        self.found[item.key] = result
