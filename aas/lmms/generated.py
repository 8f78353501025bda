"""Answers that a model writes by its own `generate`: any model, any setting, one batch from beginning to end."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import LogitsProcessor

from aas.capture import AttentionCapture, CaptureError
from aas.lmms.grids import positions_of
from aas.lmms.listening import Hear, Listener
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import A_PASS_FOR_EACH_TOKEN, FiniteLogits, TokenLogProbs
from aas.lmms.sources import Kept, kept_of, watch_of

if TYPE_CHECKING:
    from aas.lmms.base import LMM


def generated(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, hear: Hear | None
) -> tuple[list[Tensor], Kept, Tensor]:
    """Token ids int64 [T] of each answer, cut behind its end token, what was kept of it, and float32 [B, longest] log p
    of the tokens."""
    grids = [positions_of(p.grids, options.view) for p in batch]
    inputs, columns = lmm.collated([p.inputs for p in batch], grids, options.seed)
    numbers, likely = FiniteLogits(), TokenLogProbs()
    watch = watch_of(lmm, batch, columns, options)
    more = {} if hear is None else {"streamer": Listener(lmm, _so_far(watch), batch[0], options, hear)}
    with lmm.watched(watch), likely.watching(lmm.model):
        written = sequences(lmm, inputs, options, numbers, likely, **more)
    answers = answers_in(lmm, written, inputs)
    kept = kept_of(lmm, watch, batch, answers, options)  # names the layer, where the attention itself is broken
    numbers.check()
    n_written = written.shape[1] - _n_prompt(lmm, inputs)
    if watch.n_rows != n_written:
        raise CaptureError(
            f"The model wrote {n_written} tokens in {watch.n_rows} forward passes, not one for each: "
            "its generation settings are not known here."
        )
    return answers, kept, likely.of(written)


def _so_far(watch: AttentionCapture) -> Callable[[], Tensor] | None:
    """What gives the attention until now, [..., T, N] of the one answer that is heard: the mean, if map sources make
    their maps of all layers and heads in the end; None if they look at some."""
    if type(watch) is AttentionCapture:
        return lambda: watch.so_far()[0]
    if (watch.selection.layers, watch.selection.heads) != (None, None):
        return None
    return lambda: (kept := watch.so_far()[0]).reshape(-1, *kept.shape[-2:]).mean(0)


def sequences(
    lmm: "LMM", inputs: dict[str, Tensor], options: AskOptions, *noting: LogitsProcessor, **more: Any
) -> Tensor:
    """What `generate` makes of a batch's inputs; `noting` sees the scores of each token before it is chosen."""
    n_samples = len(inputs["input_ids"])
    draws = options.sampling.processors(n_samples, options.seed, lmm.device) if options.sampling else []
    return lmm.generate(
        inputs,
        **A_PASS_FOR_EACH_TOKEN,
        max_new_tokens=options.max_new_tokens or lmm.max_new_tokens,
        logits_processor=[*noting, *draws],
        pad_token_id=lmm.pad_id,
        tokenizer=lmm.tokenizer,  # for a checkpoint's stop strings
        **more,
    )


def answers_in(lmm: "LMM", sequences: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
    """Of `sequences`, the answers' tokens int64 [T] on the CPU, each cut behind its end token."""
    token_ids = sequences[:, _n_prompt(lmm, inputs) :].cpu()
    return [ids[: _answer_length(ids.tolist(), lmm.end_ids)] for ids in token_ids]


def _n_prompt(lmm: "LMM", inputs: dict[str, Tensor]) -> int:
    return 1 if lmm.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]


def _answer_length(token_ids: list[int], ends: set[int]) -> int:
    """Tokens up to the end token; what a batch writes behind it belongs to nobody."""
    return next((i + 1 for i, token in enumerate(token_ids) if token in ends), len(token_ids))
