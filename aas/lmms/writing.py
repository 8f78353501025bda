"""What a model writes while nobody looks: answers alone, without their attention, and goes on with words given."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aas.capture import evaluating
from aas.lmms.generated import answers_in, sequences
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import FiniteLogits

if TYPE_CHECKING:
    from aas.lmms.base import LMM


def first_words(lmm: "LMM", words: str, prepared: Prepared) -> Tensor:
    """Tokens int64 [T] of the words that an answer begins with, as the model would have written them."""
    return lmm.answer_ids(words, prepared.inputs["input_ids"][0])[:-1]  # without the end token


def begun(lmm: "LMM", prepared: Prepared, first: Tensor) -> dict[str, Tensor]:
    """The inputs with the beginning of the answer, int64 [T], behind the prompt: the model goes on from there.

    Raises ValueError for a model whose answer is a sequence of its own; CaptureError where it does not fit.
    """
    if lmm.model.config.is_encoder_decoder:
        raise ValueError(f"{lmm.name} answers in a sequence of its own, so that its answer cannot be begun for it.")
    lmm.check_fits(replace(prepared, answer_ids=first))
    return lmm.with_answer(prepared.inputs, first)


def write(lmm: "LMM", batch: Sequence[dict[str, Tensor]], options: AskOptions) -> list[Tensor]:
    """The tokens int64 [T] that the model writes behind each of the inputs (each a batch of one, on the CPU), up to its
    end token.

    Raises CaptureError where its scores are not finite.
    """
    nowhere = [torch.zeros(0, dtype=torch.int64)] * len(batch)
    inputs, _ = lmm.collated(batch, nowhere, options.seed)
    numbers = FiniteLogits()
    with evaluating(lmm.model):
        written = sequences(lmm, inputs, options, numbers)
    numbers.check()
    return answers_in(lmm, written, inputs)
