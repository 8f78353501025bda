"""What every LMM offers: a Hugging Face model that is asked, and watched."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, ProcessorMixin

from aas import capture
from aas.capture import CaptureError, Watch
from aas.decoding.engine import Engine
from aas.lmms.answered import answered, words_alone
from aas.lmms.collation import collate
from aas.lmms.family import Family
from aas.lmms.grids import TokenGrid, positions_of
from aas.lmms.listening import Hear
from aas.lmms.prepared import DEFAULT_OPTIONS, AskOptions, History, Prepared
from aas.lmms.prompt_checks import (
    TRIALS,
    check_answer,
    check_differ,
    check_feature_layer,
    check_length,
    check_settings,
    resolved,
    told_once,
)
from aas.lmms.sources import GENERIC, check_calibrations, needs_of
from aas.loading import in_short, is_ours
from aas.records import Answer, AttentionMaps


class LMM(Family):
    """A large multimodal model. A family says in `grids` where its image tokens lie, in the prompt and on the image.

    Everything else has a default that a family may change.
    """

    loaded_as = ""  # the name that `load_lmm` was given, where the weights are what stands there; else empty

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, name: str):
        super().__init__(model, processor, name)
        self.engine: Engine | None = None  # on a GPU: buffers and recorded steps of the last answers

    def prepare(
        self,
        image: np.ndarray,
        question: str,
        answer: str | None = None,
        answer_ids: Sequence[int] | None = None,
        options: AskOptions = DEFAULT_OPTIONS,
        history: History = (),
    ) -> Prepared:
        """Everything that needs no model: in another process, if wanted. `image` uint8 [H, W, 3] RGB, upright; see
        `aas.images.as_pixels`. `history`: what was asked about the image before, and answered. An answer is given as
        text or as tokens; as both, the tokens count. `options`: those that it will be run with; of them the map sources
        may need more prompts.

        CaptureError where image and question do not fit the model's context or its layout is not known; ValueError
        where the tokens do not write the text, the model has no such tokens, or it answers single questions only.
        """
        check_settings(getattr(self.processor, "image_processor", None), self.assumed_settings)
        if history and type(self).inputs is not Family.inputs:
            raise ValueError(f"{self.name} answers single questions: leave out what was said before.")
        inputs, grids = self._inputs_and_grids(image, question, history)
        given = None if answer_ids is None else torch.tensor(answer_ids, dtype=torch.int64)
        if answer is not None and given is None:
            given = self.answer_ids(answer, inputs["input_ids"][0])
        if given is not None:
            check_answer(self.model, self.tokenizer, given.tolist(), answer)
        generic = self.prepare(image, GENERIC) if needs_of(self, options).generic else None
        prepared = Prepared(question, inputs, grids, given, generic)
        self.check_fits(prepared)
        return prepared

    def check_fits(self, prepared: Prepared) -> None:
        """CaptureError where image, question and answer do not fit the model's context."""
        longest = getattr(self.text_config, "max_position_embeddings", None)
        check_length(prepared, longest, self.model.config.is_encoder_decoder)

    def _inputs_and_grids(
        self, image: np.ndarray, question: str, history: History
    ) -> tuple[dict[str, Tensor], tuple[TokenGrid, ...]]:
        try:
            inputs = self.inputs_after(history, image, question) if history else self.inputs(image, question)
            return inputs, tuple(self.grids(inputs, image.shape[:2]))
        except Exception as error:  # the processor's: mostly of sides that it cannot make
            if is_ours(error):
                raise
            raise CaptureError(
                f"The model's processor takes no image of {image.shape[1]} x {image.shape[0]} pixels "
                f"({in_short(error)}): enlarge it, or make it less long and thin."
            ) from error

    def check_prompt(self) -> None:
        """ValueError where an image and a question make no prompt: what is wrong with the model is told once."""
        check_feature_layer(self.model.config, self.name)
        with told_once(self.name):
            grey = np.full((64, 96, 3), 127, np.uint8)
            check_differ(*(self.prepare(grey, question).inputs["input_ids"].tolist() for question in TRIALS))

    def ask(
        self, image: np.ndarray, question: str, answer: str | None = None, options: AskOptions = DEFAULT_OPTIONS
    ) -> tuple[Answer, AttentionMaps]:
        """The model's answer, or the given one by teacher forcing, and one map per answer token.

        `image` uint8 [H, W, 3] RGB, upright; `aas.images.as_pixels` makes it of a path, a PIL image or a tensor. The
        maps are float32 [T, h, w], the mean over layers and heads. The attention of every layer and head, float32
        [layers, heads, T, h, w]:

            answer, attention = lmm.ask(image, question, options=AskOptions(selection=Selection(keep="heads")))
            attention.maps

        `keep="layers"` gives [layers, T, h, w]. `Selection(layers=(0, -1), heads=(3,), keep="heads")` gives those
        alone. The model is afterwards as it was before: attention implementation, mode, generation settings.
        """
        return self.run([self.prepare(image, question, answer, options=options)], options)[0]

    def run(
        self,
        batch: Sequence[Prepared],
        options: AskOptions = DEFAULT_OPTIONS,
        hear: Hear | None = None,
        at_once: int | None = None,
    ) -> list[tuple[Answer, AttentionMaps]]:
        """Answer all of `batch`: either every answer is given, or none. `hear` is told of the answer after each of its
        tokens, where it is one that the model writes to a batch of one. `at_once`: so many of them at a time, or
        as many as memory holds; where an answer ends, the next prompt takes its place, if the model allows it."""
        return answered(self, batch, options, hear, at_once)

    def answered(
        self, batch: Sequence[Prepared], options: AskOptions, hear: Hear | None = None, at_once: int | None = None
    ) -> list[Tensor]:
        """As `run`, the answers alone: token ids int64 [T] of each."""
        return words_alone(self, batch, options, hear, at_once)

    def check_options(self, options: AskOptions) -> None:
        """ValueError for layers and heads that the model does not have, and map sources that it cannot give."""
        needs_of(self, replace(options, selection=resolved(options.selection, self.text_config)))
        check_calibrations(self, options.maps)

    def replay_inputs(
        self, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """A batch of prompts with their answers; its image columns [B, n] and the answers' rows [B, longest]."""
        whole = [self.with_answer(p.inputs, ids) for p, ids in zip(batch, answers, strict=True)]
        inputs, columns = self.collated(whole, [positions_of(p.grids, options.view) for p in batch], options.seed)
        return inputs, columns, self.answer_rows(inputs, answers, options.alignment)

    @contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """The model as it is asked: it does not train, and `watch` looks on. Afterwards it is as it was."""
        with capture.evaluating(self.model), capture.attention_of(self.model, self.text_part), watch:
            yield

    @contextmanager
    def eager(self) -> Iterator[None]:
        """For checks: the text part runs transformers' own eager attention, which nothing is captured from."""
        with capture.evaluating(self.model), capture.attention_of(self.model, self.text_part, "eager"):
            yield

    def collated(
        self, samples: Sequence[dict[str, Tensor]], positions: Sequence[Tensor], seed: int = 0
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A batch on the model's device, padded, and the columns [B, n] of its image tokens."""
        inputs = self.seeded(collate(samples, {"input_ids": self.pad_id}, self.pads_left), seed)
        longest = inputs["input_ids"].shape[1]
        shifts = [0 if self.cross_attention else longest - sample["input_ids"].shape[1] for sample in samples]
        columns = pad_sequence(
            [where + shift for where, shift in zip(positions, shifts, strict=True)], batch_first=True
        )
        return {key: self._on_device(value) for key, value in inputs.items()}, columns.to(self.device)

    def _on_device(self, value: Tensor) -> Tensor:
        return value.to(self.device, self.model.dtype if value.is_floating_point() else None)
