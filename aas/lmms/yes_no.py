"""How likely a model's answer is yes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aas.capture import evaluating
from aas.lmms.grids import positions_of
from aas.lmms.prepared import Prepared

if TYPE_CHECKING:
    from aas.lmms.base import LMM


def yes_probabilities(lmm: "LMM", batch: Sequence[Prepared]) -> np.ndarray:
    """Float64 [B]: the probability of yes over that of yes and no as the first word of each answer, in any spelling.

    Raises ValueError for a model whose prompt is not where its answer is.
    """
    if lmm.model.config.is_encoder_decoder:
        raise ValueError(f"{lmm.name} answers in a sequence of its own, so that it cannot be asked for yes or no here.")
    positions = [positions_of(one.grids, None) for one in batch]
    inputs, _ = lmm.collated([one.inputs for one in batch], positions)
    with evaluating(lmm.model):
        logits = lmm.model(**inputs, **lmm.forward_arguments(inputs), return_dict=True).logits[:, -1].float()
    of_words = logits.softmax(-1)
    yes, no = (of_words[:, first_tokens(lmm, word)].sum(-1) for word in ("yes", "no"))
    return (yes / (yes + no).clamp(min=1e-30)).double().cpu().numpy()


def first_tokens(lmm: "LMM", word: str) -> Tensor:
    """The tokens that a word can begin with, capital or not, behind a space or not."""
    spellings = [f"{space}{one}" for one in (word, word.capitalize(), word.upper()) for space in ("", " ")]
    encoded = (lmm.tokenizer.encode(one, add_special_tokens=False) for one in spellings)
    return torch.tensor(sorted({ids[0] for ids in encoded if ids}))
