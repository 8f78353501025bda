"""Whether a model's answer is yes or no, and how likely it is yes: by its first word."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aas.capture import evaluating
from aas.lmms.grids import positions_of
from aas.lmms.prepared import Prepared
from aas.lmms.sampling import FiniteLogits

if TYPE_CHECKING:
    from aas.lmms.base import LMM


@dataclass(frozen=True)
class FirstWord:
    """`first_token`: the likeliest, as text; `is_yes`: what it begins, None where that is neither yes nor no;
    `log_odds`: log p(yes) - log p(no), each in any spelling."""

    first_token: str
    is_yes: bool | None
    log_odds: float


def yes_probabilities(lmm: "LMM", batch: Sequence[Prepared]) -> np.ndarray:
    """Float64 [B]: the probability of yes over that of yes and no as the first word of each answer, in any spelling.

    Raises as `first_words` does.
    """
    log_odds = torch.tensor([one.log_odds for one in first_words(lmm, batch)], dtype=torch.float64)
    return log_odds.sigmoid().numpy()


def first_words(lmm: "LMM", batch: Sequence[Prepared]) -> list[FirstWord]:
    """The first word of each answer, by one pass over the prompts.

    Raises ValueError for a model whose prompt is not where its answer is, or that begins yes and no alike; CaptureError
    where its scores are not finite.
    """
    if lmm.model.config.is_encoder_decoder:
        raise ValueError(f"{lmm.name} answers in a sequence of its own, so that it cannot be asked for yes or no here.")
    yes, no = _told_apart(lmm)
    positions = [positions_of(one.grids, None) for one in batch]
    inputs, _ = lmm.collated([one.inputs for one in batch], positions)
    with evaluating(lmm.model):
        logits = lmm.model(**inputs, **lmm.forward_arguments(inputs), return_dict=True).logits[:, -1].float().cpu()
    numbers = FiniteLogits()
    numbers.look_at(logits)
    numbers.check()
    log_odds = (logits[:, sorted(yes)].logsumexp(-1) - logits[:, sorted(no)].logsumexp(-1)).tolist()
    likeliest = logits.argmax(-1).tolist()
    begins = dict.fromkeys(yes, True) | dict.fromkeys(no, False)
    return [
        FirstWord(lmm.tokenizer.decode([token]), begins.get(token), odds)
        for token, odds in zip(likeliest, log_odds, strict=True)
    ]


def _told_apart(lmm: "LMM") -> tuple[set[int], set[int]]:
    """The tokens that only yes, and that only no begins with: some tokenizers begin both with a space of its own."""
    yes, no = (set(first_tokens(lmm, word).tolist()) for word in ("yes", "no"))
    if not yes - no or not no - yes:
        raise ValueError(f"{lmm.name}: its tokenizer begins yes and no alike: it cannot be asked for them here.")
    return yes - no, no - yes


def first_tokens(lmm: "LMM", word: str) -> Tensor:
    """The tokens that a word can begin with, capital or not, behind a space or not."""
    spellings = [f"{space}{one}" for one in (word, word.capitalize(), word.upper()) for space in ("", " ")]
    encoded = (lmm.tokenizer.encode(one, add_special_tokens=False) for one in spellings)
    return torch.tensor(sorted({ids[0] for ids in encoded if ids}))
