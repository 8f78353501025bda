"""Which map sources a model can give, what must be captured for them, and the maps that they make of it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from aas.capture import AttentionCapture, CaptureError
from aas.captured import MEAN, Captured, Needs
from aas.internals import Decoder, Internals, output_matrix
from aas.lmms.grids import on_grid, positions_of, sizes_of
from aas.lmms.prepared import AskOptions, Prepared
from aas.maps import DEFAULT, source_named
from aas.maps.attribution import image_margins
from aas.phrases.reasoning import tokens_of_answer
from aas.records import Answer, AttentionMaps
from aas.store.origin import Origin

if TYPE_CHECKING:
    from aas.lmms.base import LMM

Kept = Sequence[Tensor | Captured]  # of each answer: maps [..., T, n], or all that its map sources need

GENERIC = "Write a general description of the image."
_named = lru_cache(maxsize=64)(source_named)  # a calibration is read once, not for every image


def needs_of(lmm: "LMM", options: AskOptions) -> Needs:
    """What all sources need together; ValueError, with the reason, for one that the model cannot give."""
    if options.maps == (DEFAULT,):
        return Needs()
    selection, config = options.selection, lmm.text_config
    if (selection.layers, selection.heads, selection.keep) != (None, None, "mean"):
        raise ValueError(
            "Map sources choose their own layers and heads: leave --layers, --heads, --keep and presets that choose "
            f"heads out, or --maps. Beside `--maps {DEFAULT}` they are allowed."
        )
    sources = {name: _named(name) for name in options.maps}
    needs = {
        name: source.needs(config.num_hidden_layers, config.num_attention_heads) for name, source in sources.items()
    }
    for name, needed in needs.items():
        if reason := _reason_against(lmm, needed, options):
            raise ValueError(f"--maps {name}: {lmm.name} cannot give it: {reason}.")
    return reduce(or_, needs.values())


def check_calibrations(lmm: "LMM", names: Sequence[str]) -> None:
    """ValueError for heads that were chosen of another model."""
    for one in [found for name in names for found in _named(name).calibrations() if found.model is not None]:
        meant, here = Origin(str(one.model), one.revision), origin_of(lmm)
        if not meant.is_same(here):
            raise ValueError(
                f"--maps: {one.path} names heads of {meant}, and this is {here}: `aas calibrate` finds its own."
            )


def origin_of(lmm: "LMM") -> Origin:
    """The model as it was given, and what tells its weights from others."""
    return Origin.of(lmm.name, "lmm", getattr(lmm.model.config, "_commit_hash", None))


def _reason_against(lmm: "LMM", needs: Needs, options: AskOptions) -> str:
    """Why a model cannot give what is needed; empty where it can."""
    if needs.sequence and lmm.cross_attention:
        return "it reads the image by cross-attention, so that none of its hidden states belongs to a place of it"
    if needs.derivatives and options.alignment != "predict":
        return "a token's logit is written in the row that predicts it, so this source needs --alignment predict"
    try:
        if needs.sequence:
            Decoder.of(lmm.model)
    except ValueError as error:
        return str(error).rstrip(".")
    return ""


def generic_sources(lmm: "LMM", options: AskOptions) -> tuple[str, ...]:
    """The names of those that look at a generic question too."""
    return tuple(name for name in options.maps if needs_of(lmm, replace(options, maps=(name,))).generic)


def with_generic(kept: Kept, generic: Kept) -> list[Tensor | Captured]:
    """What was kept of answers, with the attention of the generic question."""
    found: list[Tensor | Captured] = []
    for one, other in zip(kept, generic, strict=True):
        assert isinstance(one, Captured) and isinstance(other, Captured)
        found.append(replace(one, generic={layer: other.of_layer(layer)[0] for layer in other.attention}))
    return found


def watch_of(
    lmm: "LMM", batch: Sequence[Prepared], columns: Tensor, options: AskOptions, rows: Tensor | None = None
) -> AttentionCapture:
    """What looks on while a batch is answered, or while given answers, whose `rows` are wanted, are replayed."""
    if options.maps == (DEFAULT,):
        return AttentionCapture(columns, options.selection, rows, lmm.records, lmm.cross_attention)
    return internals_of(lmm, batch, columns, needs_of(lmm, options), options, rows)


def internals_of(
    lmm: "LMM",
    batch: Sequence[Prepared],
    columns: Tensor,
    needs: Needs,
    options: AskOptions,
    rows: Tensor | None = None,
) -> Internals:
    """As `watch_of`, for all that is needed."""
    positions = [positions_of(one.grids, options.view) for one in batch]
    # Padding moved the columns of a batch as far as the sequence that they lie in.
    starts = [int(moved - own[0]) for moved, own in zip(columns[:, 0].tolist(), positions, strict=True)]
    decoder = Decoder.of(lmm.model) if needs.sequence else None
    places = list(zip(starts, positions, strict=True))
    return Internals(columns, needs, decoder, places, rows, lmm.records, lmm.cross_attention)


def kept_of(
    lmm: "LMM", watch: AttentionCapture, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
) -> Kept:
    """What the watch of `watch_of` kept of each answer, int64 [T]."""
    if isinstance(watch, Internals):
        return captured(lmm, watch, batch, answers, options)
    return [one[..., : len(ids), :] for one, ids in zip(watch.maps(), answers, strict=True)]


def captured(
    lmm: "LMM", watch: Internals, batch: Sequence[Prepared], answers: Sequence[Tensor], options: AskOptions
) -> list[Captured]:
    """What was kept of each answer, int64 [T]."""
    maps = watch.maps()
    derivatives: dict[int, Tensor] = {}
    if watch.needs.derivatives:
        assert watch.decoder is not None
        words = watch.decoder.word_rows(pad_sequence(list(answers), batch_first=True))
        derivatives = watch.derivatives(lmm.watched, words)
    n_heads = lmm.text_config.num_attention_heads
    outputs = {i: output_matrix(watch.modules[i], n_heads) for i in watch.seen} if watch.needs.outputs else {}
    placed = [_positions(lmm, one, ids, options) for one, ids in zip(batch, answers, strict=True)]
    return [
        replace(
            one,
            attention=_attention(watch, maps[i, ..., : len(one.answer), : len(one.columns)]),
            by_head=watch.selection.keep == "heads",
            heads=watch.selection.heads,
            outputs=outputs,
            derivatives={layer: rows[i, : len(one.answer)].transpose(0, 1) for layer, rows in derivatives.items()},
            matrices={layer: matrices[i] for layer, matrices in watch.matrices.items()},
            **_along_the_sequence(lmm, watch, i, one.token_ids),
        )
        for i, one in enumerate(placed)
    ]


def _positions(lmm: "LMM", one: Prepared, ids: Tensor, options: AskOptions) -> Captured:
    prompt, columns = one.inputs["input_ids"][0], positions_of(one.grids, options.view)
    token_ids = torch.cat([prompt, ids])
    answer = torch.arange(len(prompt), len(token_ids))
    # Of all views, and what separates rows of an image: it is written with the same token.
    is_text = ~torch.isin(token_ids, prompt[columns[columns < len(prompt)]])
    is_special = torch.isin(prompt, torch.tensor(lmm.tokenizer.all_special_ids))
    words = (is_text[: len(prompt)] & ~is_special).nonzero()[:, 0]
    sizes_hw, rows = sizes_of(one.grids, options.view), answer - int(options.alignment == "predict")
    return Captured(token_ids, columns, is_text, words, answer, rows, sizes_hw)


def _attention(watch: Internals, maps: Tensor) -> dict[int, Tensor]:
    return {MEAN: maps} if watch.selection.keep == "mean" else dict(zip(watch.seen, maps, strict=True))


def _along_the_sequence(lmm: "LMM", watch: Internals, image: int, token_ids: Tensor) -> dict[str, Any]:
    """Values and states of one image, without its padding."""
    start = watch.places[image][0]
    here = slice(None) if lmm.cross_attention else slice(start, start + len(token_ids))
    found: dict[str, Any] = {"values": {layer: values[image, :, here] for layer, values in watch.values().items()}}
    if watch.needs.hidden:
        assert watch.decoder is not None
        hidden = {layer: watch.hidden(layer)[image, here] for layer in watch.needs.hidden}
        found["residuals"] = {layer: hidden[layer] for layer in watch.needs.residuals}
        found["states"] = {layer: watch.decoder.norm(hidden[layer]) for layer in watch.needs.states}
        found["word_rows"] = watch.decoder.word_rows(token_ids)
    return found


@torch.no_grad()
def made_maps(captured: Captured, one: Prepared, answer: Answer, options: AskOptions) -> AttentionMaps:
    """The maps of all sources that were asked for, the first one's in front. CaptureError where some are no numbers."""
    counted = tokens_of_answer(answer)
    captured = replace(captured, counted=None if counted is None else tuple(counted))
    maps = {name: _named(name)(captured).float() for name in options.maps}
    for name, made in maps.items():
        if not made.isfinite().all():
            raise CaptureError(
                f"The maps of {name} are not finite numbers. Load the model in another precision: --dtype bfloat16 or "
                "--dtype float32."
            )
    grid, view = on_grid(torch.stack(list(maps.values())).numpy(), one.grids, options.view)
    first, *beside = options.maps
    margins = image_margins(captured).numpy() if captured.derivatives else None
    return AttentionMaps(grid[0], view, options.alignment, first, dict(zip(beside, grid[1:], strict=True)), margins)
