"""Answers that are given: the model reads prompt and answer in one forward pass."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import FiniteLogits, log_probs
from aas.lmms.sources import Kept, kept_of, watch_of

if TYPE_CHECKING:
    from aas.lmms.base import LMM


def replayed(
    lmm: "LMM", batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
) -> tuple[Kept, Tensor]:
    """What is kept of given answers, int64 [T] each, and float32 [B, longest] log p of their tokens."""
    inputs, columns, rows = lmm.replay_inputs(batch, answers, options)
    watch = watch_of(lmm, batch, columns, options, rows)
    predicting = lmm.answer_rows(inputs, answers, "predict")
    n_logits = predicting.shape[1] + 1
    with lmm.watched(watch):
        arguments = lmm.forward_arguments(inputs) | {"logits_to_keep": n_logits}
        logits = lmm.model(**inputs, **arguments, return_dict=True).logits
    kept = kept_of(lmm, watch, batch, answers, options)  # names the layer, where the attention itself is broken
    likely, numbers = _likely(lmm, inputs, logits, answers, predicting), FiniteLogits()
    numbers.look_at(logits[:, -1])
    numbers.look_at(likely)
    numbers.check()
    return kept, likely


def _likely(lmm: "LMM", inputs: dict[str, Tensor], logits: Tensor, answers: Sequence[Tensor], rows: Tensor) -> Tensor:
    """Float32 [B, longest]: log p of the answers' tokens by the `logits` [B, the last n, V] of `rows`."""
    n_all = inputs["decoder_input_ids" if lmm.model.config.is_encoder_decoder else "input_ids"].shape[1]
    places = (rows - (n_all - logits.shape[1])).clamp(min=0).to(logits.device)
    # One by one: in float32 the scores of a batch are as large as what the rest of the pass needs.
    found = [
        log_probs(one[place[: len(ids)]], ids.to(one.device)).cpu()
        for one, place, ids in zip(logits, places, answers, strict=True)
    ]
    return pad_sequence(found, batch_first=True)
