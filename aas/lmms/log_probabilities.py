"""How likely a model finds given answers, token by token."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aas.capture import evaluating
from aas.lmms.prepared import DEFAULT_OPTIONS, Prepared
from aas.lmms.sampling import FiniteLogits

if TYPE_CHECKING:
    from aas.lmms.base import LMM


@torch.no_grad()
def log_probabilities(lmm: "LMM", batch: Sequence[Prepared]) -> list[Tensor]:
    """Of each given answer of T tokens, float32 [T] on the CPU: log p(token | image, question, the tokens before it),
    by one pass over prompts and answers. CaptureError where the model's scores are not finite."""
    answers = [one.answer_ids for one in batch if one.answer_ids is not None]
    assert len(answers) == len(batch), "all answers are given"
    inputs, _, rows = lmm.replay_inputs(batch, answers, DEFAULT_OPTIONS)
    arguments = lmm.forward_arguments(inputs)
    if "logits_to_keep" in arguments:  # the answers' rows are the last ones, but for the very last, which predicts none
        arguments["logits_to_keep"] = rows.shape[1] + 1
    with evaluating(lmm.model):
        logits = lmm.model(**inputs, **arguments, return_dict=True).logits
    n_all = inputs.get("decoder_input_ids", inputs["input_ids"]).shape[1]
    rows = (rows - (n_all - logits.shape[1])).to(logits.device)
    numbers, found = FiniteLogits(), []
    for image, ids in enumerate(answers):
        scores = logits[image, rows[image, : len(ids)]].float()
        numbers.look_at(scores)
        found.append(scores.log_softmax(-1).cpu()[torch.arange(len(ids)), ids])
    numbers.check()
    return found
