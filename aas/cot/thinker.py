"""The chain: a thought, its thing on the photograph, a crop of it, and the question once more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aas.choices import Look, Show, ThoughtWords, check
from aas.cot import prompts
from aas.cot.regions import box_of, crop_around, cropped
from aas.cot.served import said_by, thought_ids
from aas.cot.thoughts import Named, first_sentence
from aas.geometry import stretched_view
from aas.ground import Asked, Grounder, Request
from aas.grounding import Grounding
from aas.images import ImageLike, name_of
from aas.lmms.prompt_checks import check_answer
from aas.lmms.several_images import check_takes_two, inputs_of
from aas.lmms.writing import begun, first_words, write
from aas.phrases.alignment import decode_with_spans
from aas.phrases.reasoning import reasoning_spans
from aas.presets import DEFAULT_QUESTION
from aas.records import Answer, AttentionMaps, BoxXyxy, PixelBox, SecondLook
from aas.store.keys import quoted


@dataclass(frozen=True)
class Question(Request):
    """What is asked about an image; `box_xyxy`: where its answer is, in pixels, if that is known."""

    box_xyxy: BoxXyxy | None = None


@dataclass(frozen=True)
class Chain:
    """How a chain of thought goes.

    `look`: where to once more: at the thing of the model's own `thought`, the `given` box, or nowhere (`whole`: the
    question alone, to compare with). `thought_words`: whether the words that name the thing are grounded, or all of the
    thought, as F-LMM does. `show`: whether the last question shows both images, or the crop alone. `crop_scale`:
    sides of the crop by those of the box. `thought_tokens`, `answer_tokens`: the longest. `instruction`: a line behind
    the last question; empty for none.
    """

    look: Look = "thought"
    thought_words: ThoughtWords = "object"
    show: Show = "both"
    crop_scale: float = 1.0
    thought_tokens: int = 16
    answer_tokens: int = 32
    instruction: str = prompts.INSTRUCTION

    def __post_init__(self) -> None:
        for name, words in (("look", Look), ("thought_words", ThoughtWords), ("show", Show)):
            check(name, getattr(self, name), words)
        if not 0 < self.crop_scale <= 100:
            raise ValueError(f"--crop-scale {self.crop_scale}: give a number above 0 and at most 100.")


class Thinker:
    """A grounder that thinks before it answers.

        thinker = Thinker(aas.Grounder(model="Qwen/Qwen3-VL-8B-Instruct"))
        grounding = thinker("photo.jpg", "What colour is the cup?")
        grounding.second_look.answer

    Where a server answers for the grounder, it thinks and answers here too, and the model reads its thoughts. The
    grounding is that of the thought; where nothing is looked for it has no phrases. Raises ValueError for a model
    that cannot be asked so: with two images, or with its answer begun for it.
    """

    def __init__(self, grounder: Grounder, chain: Chain = Chain()):
        self.grounder, self.lmm, self.chain = grounder, grounder.lmm, chain
        if chain.look == "thought" and self.lmm.model.config.is_encoder_decoder:
            raise ValueError(f"{self.lmm.name} answers in a sequence of its own, so that no thought is begun for it.")
        if chain.look != "whole" and chain.show == "both" and grounder.served is None:
            try:
                check_takes_two(self.lmm)
            except ValueError as error:
                raise ValueError(f"{error} --show crop asks about the crop alone.") from error

    def __call__(self, image: ImageLike, question: str, box_xyxy: Any = None) -> Grounding:
        """Ask about an image. `box_xyxy`: where to look, in pixels, for `look="given"`."""
        box = None if box_xyxy is None else tuple(map(float, box_xyxy))
        asked = Question("0", image, question or DEFAULT_QUESTION, box_xyxy=box)  # type: ignore[arg-type]
        return self.compute([self.prepare(asked)])[0]

    def prepare(self, request: Question) -> Asked:
        """Everything that needs no model. Raises ImageError for an unusable image, ValueError for a box outside it."""
        words = self._last(request.question) if self.chain.look == "whole" else prompts.thinking(request.question)
        asked = self.grounder.prepare(replace(request, question=words))
        if self.chain.look == "given":
            _check_box(request.box_xyxy, asked.image.shape[:2])
        return replace(asked, request=request)

    def compute(self, batch: Sequence[Asked]) -> list[Grounding]:
        """Of each the grounding of the thought, with how the chain ends."""
        thoughts = self._thoughts(batch) if self.chain.look == "thought" else list(map(_no_thought, batch))
        boxes = [self._box(one, thought) for one, thought in zip(batch, thoughts, strict=True)]
        crops = [self._crop(one.image, box) for one, box in zip(batch, boxes, strict=True)]
        answers = self._answers(batch, crops)
        looks = [SecondLook(*found) for found in zip(answers, map(_whole_pixels, boxes), crops, strict=True)]
        return [replace(thought, second_look=look) for thought, look in zip(thoughts, looks, strict=True)]

    # ------------------------------------------------------------------------------------------ the thought

    def _thoughts(self, batch: Sequence[Asked]) -> list[Grounding]:
        """The model's own, read once more behind the words that it was begun with: maps are of whole sentences."""
        first = first_words(self.lmm, prompts.BEGINNING, batch[0].prepared)
        written = self._thought_ids(batch, first)
        told = [self._told(one, first, ids) for one, ids in zip(batch, written, strict=True)]
        named = Named(self.grounder.pipeline, len(first), self.chain.thought_words, self.grounder.pointing.words)
        found = self.grounder.compute(told, named)
        asked = [one.request.question for one in batch]
        return [
            replace(one, answer=replace(one.answer, question=words)) for one, words in zip(found, asked, strict=True)
        ]

    def _thought_ids(self, batch: Sequence[Asked], first: Tensor) -> list[Tensor]:
        options = replace(self.grounder.ask_options, max_new_tokens=self.chain.thought_tokens)
        if self.grounder.served is None:
            return write(self.lmm, [begun(self.lmm, one.prepared, first) for one in batch], options)
        asked = [([("", one.image)], f"{prompts.thinking(one.request.question)} {prompts.BEGIN}") for one in batch]
        thoughts = said_by(replace(self.grounder.served, options=options), asked)
        return [thought_ids(self.lmm, one.prepared, thought) for one, thought in zip(batch, thoughts, strict=True)]

    def _told(self, asked: Asked, first: Tensor, ids: Tensor) -> Asked:
        sentence = first_sentence(self.lmm.tokenizer, ids.tolist())
        check_answer(self.lmm.model, self.lmm.tokenizer, sentence, None)  # it is read as one that is given
        own = torch.tensor(sentence, dtype=torch.int64)
        return replace(asked, prepared=replace(asked.prepared, answer_ids=torch.cat([first, own])))

    # ------------------------------------------------------------------------------------ the second look

    def _box(self, asked: Asked, thought: Grounding) -> BoxXyxy | None:
        if self.chain.look == "given":
            assert isinstance(asked.request, Question)
            return asked.request.box_xyxy
        return box_of(thought.phrases[0].mask) if thought.phrases else None

    def _crop(self, image: np.ndarray, box: BoxXyxy | None) -> PixelBox | None:
        """Where nothing was found it is the whole image."""
        height, width = image.shape[:2]
        if self.chain.look == "whole":
            return None
        return (0, 0, width, height) if box is None else crop_around(box, (height, width), self.chain.crop_scale)

    def _answers(self, batch: Sequence[Asked], crops: Sequence[PixelBox | None]) -> list[str]:
        shown = [self._shown(one.image, crop) for one, crop in zip(batch, crops, strict=True)]
        last = [self._last(one.request.question) for one in batch]
        options = replace(self.grounder.ask_options, max_new_tokens=self.chain.answer_tokens)
        if self.grounder.served is not None:
            asked = list(zip(shown, last, strict=True))
            return list(map(_visible, said_by(replace(self.grounder.served, options=options), asked)))
        inputs = [
            one.prepared.inputs if self.chain.look == "whole" else self._inputs(some, question)
            for one, some, question in zip(batch, shown, last, strict=True)
        ]
        written = write(self.lmm, inputs, options)
        return [_visible(decode_with_spans(self.lmm.tokenizer, ids.tolist())[0]) for ids in written]

    def _shown(self, image: np.ndarray, crop: PixelBox | None) -> list[tuple[str, np.ndarray]]:
        """What the last question is about: images, with words about each where there are two."""
        if crop is None:
            return [("", image)]
        part = cropped(image, crop)
        return [("", part)] if self.chain.show == "crop" else [(prompts.WHOLE, image), (prompts.PART, part)]

    def _inputs(self, shown: Sequence[tuple[str, np.ndarray]], question: str) -> dict[str, Tensor]:
        if len(shown) > 1:
            return inputs_of(self.lmm, shown, question)
        return self.lmm.prepare(shown[0][1], question).inputs

    def _last(self, question: str) -> str:
        return f"{question}\n{self.chain.instruction}" if self.chain.instruction.strip() else question


def _no_thought(asked: Asked) -> Grounding:
    """Of an image about which nothing was thought."""
    image, request = asked.image, asked.request
    nothing = AttentionMaps(np.zeros((0, 1, 1), np.float32), stretched_view((1, 1), image.shape[:2]))
    name, answer = quoted(name_of(request.source)), Answer(request.question, "", (), ())
    return Grounding(name, image, answer, (), nothing, (), request.place)


def _visible(text: str) -> str:
    """The answer in one line, without what the model said to itself before."""
    for (start, end), _ in reversed(list(reasoning_spans(text))):
        text = f"{text[:start]} {text[end:]}"
    return " ".join(text.split())


def _check_box(box: BoxXyxy | None, image_hw: tuple[int, ...]) -> None:
    if box is None:
        raise ValueError("no box is given for it, so that it cannot be looked at there")
    x0, y0, x1, y1 = box
    height, width = image_hw
    if not (x0 < x1 and y0 < y1 and x0 < width and y0 < height and x1 > 0 and y1 > 0):
        raise ValueError(f"its box {list(box)} has no pixel of an image of {width} x {height}")


def _whole_pixels(box: BoxXyxy | None) -> PixelBox | None:
    """Those that the box touches."""
    if box is None:
        return None
    x0, y0, x1, y1 = box
    return max(0, math.floor(x0)), max(0, math.floor(y0)), math.ceil(x1), math.ceil(y1)
