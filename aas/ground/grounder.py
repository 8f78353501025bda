"""`Grounder`: loads the models, and answers calls."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Unpack, overload

from aas.asking import How, ask_options, told_apart
from aas.available import all_here
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
from aas.confidence.judging import Judge
from aas.engine.local import carry_out
from aas.engine.stage import Plan
from aas.ground.bands import blackbox_of
from aas.ground.batches import Collecting, GroundingError
from aas.ground.request import Asked, Request
from aas.ground.steps import Steps, with_masks
from aas.grounding import Grounding
from aas.headed import WITH_ADAPTER, HeadMasks
from aas.images import ImageLike, as_pixels
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, History
from aas.maps import DEFAULT
from aas.phrases.apart import load_pipeline
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed, PointingOptions
from aas.presets import DEFAULT_QUESTION, LEFT_OUT, maps_for, preset_named
from aas.records import Answer, AttentionMaps, GroundedPhrase
from aas.segmenters import load_segmenter
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.streaming import Event, Tell, Telling, pulled

if TYPE_CHECKING:
    import torch
    from spacy.language import Language
    from transformers import PreTrainedModel

    from aas.answering.answers import Served


class Grounder(Steps):
    """Loads the three models once, then grounds images.

        grounder = Grounder()
        grounding = grounder("photo.jpg", "What is on the table?")

    `model`, `segmenter` and `phrases` are `embedded`, a Hugging Face id, a local folder, a checkpoint file of
    segment-anything (segmenter), or the name of a spaCy pipeline (phrases); or what is loaded already: a model of
    transformers with its `processor`, an object with the segmenters' four names, a spaCy pipeline. `base`: the base
    LLM, where `model` is a LoRA in LLaVA's own format. `adapter`: a peft LoRA to merge. `device`, `dtype`, `quantize`
    and `device_map`: how the LMM is loaded; the segmenter shares the device, and computes in `segmenter_dtype`.

    `preset`: `paper` (the default), `reference-2024` or `reference-2025`; it says which heads count and how the maps of
    a phrase's tokens are merged, unless `heads` and `merge` do. `layers`, `alignment`, `view`: which attention counts.
    `maps`: names of map sources, `"tam"` or a list, the first of which points (docs/maps.md): by default `mean`, and of
    the embedded LMM, where nothing else is said of attention, a sum of two. `read_out`: the first point is the map's
    `argmax`, the `centroid` of what is above its mean, or inside of the largest such `region`.
    `max_new_tokens`, `temperature`, `top_p`, `seed`: how the LMM answers. `words`: tokens of a phrase's `root` or of
    the whole `chunk`; `drop`: phrases that are left out, by default pronouns and the unseen ("the image"), () for none;
    `reasoning`: ground what the model says between `<think>` and `</think>` too.
    `prompt`: `point`s, `n_points` at the peaks and `n_negative` at the troughs of a phrase's map, or the map as a
    `mask`. `mask_choice`: `last`, `best-score` or `best-attention`. `head`: a mask head that was trained on this LMM,
    by file or name (docs/heads.md), which makes the masks instead, of pixels of more than `head_threshold`.
    `min_confidence`: phrases of less are left out (docs/maps.md). `batch_size`: images of a list that the LMM answers
    at once. `answers_from`: a server that answers instead, `http://HOST:PORT/v1`, with its `answers_model` (by default
    the one that it has), `in_flight` questions at once; the LMM reads its answers (docs/answers.md).

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
        preset: PresetName | None = None,
        merge: Merge | None = None,
        words: Words = "root",
        drop: Sequence[Kind] = LEFT_OUT,
        reasoning: bool = False,
        prompt: PromptKind = "point",
        n_points: int = 1,
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
        named, (asking, loading) = preset_named(preset), told_apart(how)
        called = "" if loading.get("adapter") else _name(model)
        if asking.get("maps") is None:
            alignment = asking.get("alignment", "predict")
            asking["maps"] = maps_for(called, asking.get("layers"), asking.get("heads"), alignment, preset)
        if asking.get("heads") is None:
            asking["heads"] = named.heads
        blackbox = blackbox_of(asking)
        options = ask_options(**asking)
        points = (n_points, n_negative)
        chosen = (merge or named.merge, words, tuple(drop), prompt)
        pointing = PointingOptions(*chosen, *points, reasoning=reasoning, read_out=read_out)
        served = _served_by(answers_from, answers_model, in_flight)
        judge = Judge(called, pointing, min_confidence)
        all_here(model, segmenter, phrases)
        pipeline = load_pipeline(phrases)
        place = device if isinstance(model, str | Path) else device or model.device  # what is loaded stays where it is
        eyes = load_segmenter(segmenter, place, segmenter_dtype)
        lmm = load_lmm(model, device if isinstance(model, str | Path) else None, **loading)
        lmm.check_options(options)
        super().__init__(
            lmm=lmm,
            segmenter=eyes,
            pipeline=pipeline,
            ask_options=options,
            pointing=replace(pointing, mask_side=eyes.mask_side),
            mask_choice=mask_choice,
            judge=judge,
            blackbox=blackbox,
            head=None if head is None else HeadMasks(head, lmm, eyes, segmenter, head_threshold),
            served=served(lmm, options) if served else None,
            batch_size=batch_size,
        )
        self._turn = RLock()  # an LMM that is watched answers one question at a time

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

        A phrase's `span` lies in the text that was told before it. Its map is of the attention, relative to the words
        until then, and the parser has read no further: the Grounding at the end may have a better mask of it, or read
        other phrases, and has their confidence. Each of the Grounding's phrases was told once. Where the whole answer
        is needed (alignment "self", `min_confidence`, a head, `maps` of some layers or heads) phrases come when it is
        there. Another call waits until the answer is written; the iterator may be left, or closed, at any time.
        `history`: earlier questions about the image and their answers, which the model is shown before this one.

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
            return with_masks(pointed, phrase_masks(self.segmenter, embedding(), pointed, self.mask_choice))

        telling = Telling(tell, self.pipeline, self.pointing, asked.image.shape[:2], grounded)
        # Maps that are asked for phrase by phrase are none of the answer's attention; nor is it known who is left out.
        # A head looks at the whole answer.
        is_late = self.blackbox is not None or self.judge.least is not None or self.head is not None
        hear = (lambda answer, _: telling.hear(answer, None)) if is_late else telling.hear
        with self._turn:
            said = self.lmm.run([asked.prepared], self.ask_options, hear)
            telling.end(self._grounded([asked], said)[0])

    def _ready(self, request: Request) -> Asked:
        """One alone, ready for the LMM."""
        ((request, error),) = [(request, None)] if request.answer is not None else self.fed([request])
        if error is not None:
            raise error
        return self.prepare(request)

    def _all(self, requests: Sequence[Request]) -> list[Grounding | GroundingError]:
        collecting = Collecting(self, all(request.answer is not None for request in requests))
        for request, reason in carry_out(collecting, requests, Plan(self.images_at_once())):
            if reason is not None:
                collecting.found[request.key] = GroundingError(reason)
        return [collecting.found[request.key] for request in requests]

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


def _name(model: object) -> str:
    """Of what is loaded already, that by which aas loaded it; empty for what came from elsewhere."""
    return model if isinstance(model, str) else str(getattr(model, "loaded_as", ""))


def _served_by(address: str | None, model: str | None, in_flight: int) -> "Callable[[LMM, AskOptions], Served] | None":
    """The server, looked at before any model is loaded; its client is not imported for those who have none."""
    if address is None:
        return None
    from aas.answering.answers import Served
    from aas.answering.server import server_at

    return partial(Served, server_at(address, model, in_flight))
