"""A batch is answered: by the model, in slots or by its `generate`, or with what is given; and what comes of it."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aas.capture import NOTHING
from aas.captured import Captured
from aas.decoding.slots import Unsuited
from aas.lmms.decoded import decoded, records_steps, suits
from aas.lmms.generated import generated
from aas.lmms.grids import on_grid
from aas.lmms.listening import Hear
from aas.lmms.prepared import DEFAULT_OPTIONS, AskOptions, Prepared
from aas.lmms.prompt_checks import resolved
from aas.lmms.replayed import replayed
from aas.lmms.sources import Kept, generic_sources, made_maps, needs_of, with_generic
from aas.phrases.alignment import decode_with_spans
from aas.records import Answer, AttentionMaps

if TYPE_CHECKING:
    from aas.lmms.base import LMM

log = logging.getLogger(__name__)


def answered(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, hear: Hear | None, at_once: int | None
) -> list[tuple[Answer, AttentionMaps]]:
    """As `LMM.run`."""
    options = replace(options, selection=resolved(options.selection, lmm.text_config))
    given = [prepared.answer_ids for prepared in batch]
    if all(ids is None for ids in given):
        if not _read_once_more(lmm, options):
            return _results(lmm, batch, *_written(lmm, batch, options, hear, at_once), options)
        given = list(_told(lmm, batch, options, hear, at_once))
    answers = [ids for ids in given if ids is not None]
    assert len(answers) == len(batch), "all answers are given, or none"
    n = at_once or len(batch)
    parts = [slice(start, start + n) for start in range(0, len(batch), n)]
    return [
        result
        for part in parts
        for result in _results(
            lmm, batch[part], answers[part], *replayed(lmm, batch[part], answers[part], options), options
        )
    ]


def _read_once_more(lmm: "LMM", options: AskOptions) -> bool:
    """Whether an answer is read in one pass when it is written, for its maps."""
    needs = needs_of(lmm, options)
    # The last token of an answer never was an input: its own row takes one more pass.
    if options.alignment != "predict" or needs.replay:
        return True
    # One more pass should take less time than steps of `generate`, where those in slots are replayed as graphs.
    words = replace(options, maps=DEFAULT_OPTIONS.maps)
    return needs.derivatives and suits(lmm, words) and records_steps(lmm, words)


def _told(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, hear: Hear | None, at_once: int | None
) -> list[Tensor]:
    """As `LMM.answered`; who hears of maps that the whole answer is needed for hears of the attention until then."""
    if hear is None or options.alignment != "predict":
        words = None if hear is None else (lambda answer, _: hear(answer, None))
        return words_alone(lmm, batch, options, words, at_once)
    return _written(lmm, batch, replace(options, maps=DEFAULT_OPTIONS.maps), hear, at_once)[0]


def words_alone(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, hear: Hear | None, at_once: int | None
) -> list[Tensor]:
    """As `LMM.answered`."""
    options = replace(options, maps=DEFAULT_OPTIONS.maps, selection=NOTHING)
    return _written(lmm, batch, options, hear, at_once)[0]


def _written(
    lmm: "LMM", batch: Sequence[Prepared], options: AskOptions, hear: Hear | None, at_once: int | None
) -> tuple[list[Tensor], Kept, Tensor]:
    """Token ids int64 [T] of each, cut behind its end token, what was kept of it, and float32 [B, longest] log p of
    the tokens."""
    if suits(lmm, options):
        try:
            return decoded(lmm, batch, options, at_once, hear)
        except Unsuited as reason:
            log.debug("%s writes answers by generate: %s", lmm.name, reason)
    if options.selection is NOTHING:
        options = replace(options, selection=DEFAULT_OPTIONS.selection)  # attention comes along by itself there
    n = at_once or len(batch)
    parts = [generated(lmm, batch[i : i + n], options, hear) for i in range(0, len(batch), n)]
    return (
        [ids for answers, *_ in parts for ids in answers],
        [one for _, kept, _ in parts for one in kept],
        pad_sequence([one for *_, rows in parts for one in rows], batch_first=True),
    )


def _results(
    lmm: "LMM", batch: Sequence[Prepared], answers: Sequence[Tensor], kept: Kept, likely: Tensor, options: AskOptions
) -> list[tuple[Answer, AttentionMaps]]:
    if needs_of(lmm, options).generic:
        kept = with_generic(kept, _generic(lmm, batch, options))
    results = []
    for prepared, ids, one, log_p in zip(batch, answers, kept, likely.tolist(), strict=True):
        token_ids = ids.tolist()
        text, spans = decode_with_spans(lmm.tokenizer, token_ids)
        answer = Answer(prepared.question, text, tuple(token_ids), tuple(spans), tuple(log_p[: len(token_ids)]))
        if isinstance(one, Captured):
            results.append((answer, made_maps(one, prepared, answer, options)))
            continue
        grid, grid_view = on_grid(one.numpy(), prepared.grids, options.view)
        results.append((answer, AttentionMaps(grid, grid_view, options.alignment)))
    return results


def _generic(lmm: "LMM", batch: Sequence[Prepared], options: AskOptions) -> Kept:
    """What is kept of the row that would begin an answer to a generic question, for the sources that need it."""
    prompts = [one.generic for one in batch if one.generic is not None]
    if len(prompts) < len(batch):
        raise ValueError("These map sources need more prompts: give `prepare` the same options as `run`.")
    one_token = [torch.tensor([lmm.pad_id])] * len(batch)  # whose row, the one before it, is the prompt's last
    options = replace(options, maps=generic_sources(lmm, options), alignment="predict")
    return replayed(lmm, prompts, one_token, options)[0]
