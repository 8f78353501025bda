"""What a trained mask head is given: of the phrases of a given text, what every layer and head of an LMM saw."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.geometry import resampled
from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.highres import eye_layers, high_eye_layers
from aas.lmms.base import LMM
from aas.lmms.eyes import Eyes, TwoEyes
from aas.lmms.grids import COMBINED
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sources import captured, internals_of, needs_of
from aas.maps import source_named
from aas.maps.fused import own_maps
from aas.phrases.alignment import decode_with_spans, overlapping
from aas.records import View

Span = tuple[int, int]


def head_shape(lmm: LMM, n_views: int = 1) -> HeadShape:
    """Of a head for this LMM; ValueError for one whose image is not in the sequence of its layers."""
    if lmm.cross_attention:
        raise ValueError(f"{lmm.name} reads the image by cross-attention in some layers: no head is trained on it.")
    return HeadShape.of(lmm.model.config, n_views)


@torch.no_grad()
def phrase_features(
    lmm: LMM,
    shape: HeadShape,
    batch: Sequence[Prepared],
    spans: Sequence[Sequence[Span]],
    images_hw: Sequence[Span],
    with_eyes: bool = False,
    sources: Sequence[str] = (),
) -> list[PhraseFeatures]:
    """Of photographs of `images_hw` pixels, prepared with a given text each, in which phrases stand at half-open ranges
    of characters: one pass for the batch, tensors float32 on the CPU.

    A phrase's rows are those whose input is one of its tokens (alignment `self`), whichever alignment maps have
    elsewhere. `with_eyes`: layers of the vision encoder and its pixels too; `sources`: maps of these, which need the
    rows that predict its tokens, so that its attention is of those too. Raises ValueError for a phrase without tokens,
    for an LMM of another shape, and for sources that it cannot give.
    """
    options = AskOptions(alignment="predict" if sources else "self", view=COMBINED if shape.n_views > 1 else None)
    answers = [one.answer_ids for one in batch if one.answer_ids is not None]
    if len(answers) < len(batch):
        raise ValueError("Features of phrases are of a given text: prepare each photograph with its answer.")
    inputs, columns, rows = lmm.replay_inputs(batch, answers, options)
    needs = _needs(shape)
    if sources:
        if shape.n_views > 1:
            raise ValueError("The head looks at maps, which are of one view of an image.")
        needs |= needs_of(lmm, replace(options, maps=tuple(sources)))
    watch = internals_of(lmm, batch, columns, needs, options, rows)
    eyes = _eyes(lmm) if with_eyes else None
    with lmm.watched(watch), eyes or nullcontext():
        lmm.model(**inputs, **lmm.forward_arguments(inputs), return_dict=True)
    kept = captured(lmm, watch, batch, answers, options)
    found = [
        _of_one(one, prepared, shape, [_tokens(lmm, ids, span) for span in some], image_hw, sources)
        for one, prepared, ids, some, image_hw in zip(kept, batch, answers, spans, images_hw, strict=True)
    ]
    if eyes is None:
        return found
    return [
        replace(one, pixels=_pixels(lmm, prepared), eyes=eyes.of_image(i, one.view.size_hw))
        for i, (one, prepared) in enumerate(zip(found, batch, strict=True))
    ]


def _eyes(lmm: LMM) -> Eyes:
    if hasattr(getattr(lmm.model, "model", None), "high_res_vision_model"):
        return TwoEyes(lmm.model, eye_layers, high_eye_layers)
    return Eyes(lmm.model, eye_layers)


def _pixels(lmm: LMM, one: Prepared) -> Tensor:
    """What the vision encoder saw of an image, float32 [3, H, W]; of two encoders the larger input, from 0 to 1: in
    DeepSeek-VL's own code each of the two normalises. ValueError where it saw several parts."""
    high = one.inputs.get("high_res_pixel_values")
    if high is not None:
        how = lmm.processor.image_processor
        mean, std = (torch.tensor(value)[:, None, None] for value in (how.high_res_image_mean, how.high_res_image_std))
        return high[0].float() * std + mean if how.do_normalize else high[0].float()
    pixels = one.inputs.get("pixel_values")
    if pixels is None or pixels.ndim != 4 or len(pixels) != 1 or len(one.grids) != 1:
        raise ValueError("The head looks at one input of the vision encoder; this LMM cuts its images into several.")
    return pixels[0].float()


def _needs(shape: HeadShape) -> Needs:
    """Every head's attention, and what leaves each layer: what the next one gets, or the final norm makes of it."""
    n = shape.n_layers
    return Needs("heads", residuals=frozenset(range(1, n)), states=frozenset({n}))


def _tokens(lmm: LMM, token_ids: Tensor, span: Span) -> tuple[int, ...]:
    text, spans = decode_with_spans(lmm.tokenizer, token_ids.tolist())
    found = overlapping(spans, span)
    if not found:
        raise ValueError(f"No token writes characters {span[0]} to {span[1]} of {text!r}.")
    return found


def _of_one(
    kept: Captured,
    one: Prepared,
    shape: HeadShape,
    phrases: Sequence[tuple[int, ...]],
    image_hw: Span,
    sources: Sequence[str],
) -> PhraseFeatures:
    if len(kept.attention) != shape.n_layers:
        raise ValueError(
            f"{len(kept.attention)} of the LMM's {shape.n_layers} layers attend to the image: no head fits."
        )
    grids = one.grids if shape.n_views > 1 else one.grids[:1]
    if len(grids) != shape.n_views:
        raise ValueError(
            f"The head was made for {shape.n_views} views of an image; of this one there are {len(grids)}."
        )
    every = torch.cat([kept.attention[layer] for layer in sorted(kept.attention)]).float()  # [C, T, N]
    merged = [every[:, list(tokens)].mean(1) for tokens in phrases]
    rows = torch.stack(merged) if merged else every.new_zeros(0, len(every), every.shape[2])
    # All on the finest grid, which is the last: coarse maps in front of fine ones.
    view, parts = grids[-1].view, rows.split([len(grid.positions) for grid in grids], dim=2)
    maps = [
        part.unflatten(2, grid.view.size_hw) if grid is grids[-1] else _onto(part, grid.view, view)
        for part, grid in zip(parts, grids, strict=True)
    ]
    n = shape.n_layers
    layers = torch.stack([*(kept.residuals[layer] for layer in range(1, n)), kept.states[n]])  # [L, S, D]
    states = tuple(layers[:, kept.answer[list(tokens)]].float().cpu() for tokens in phrases)
    made = torch.stack([_maps(name, kept, phrases) for name in sources], dim=1) if sources else None
    made = None if made is None else made.unflatten(2, view.size_hw)
    return PhraseFeatures(torch.cat(maps, dim=1), states, view, image_hw, maps=made)


def _maps(name: str, kept: Captured, phrases: Sequence[tuple[int, ...]]) -> Tensor:
    """Of a source, [P, N]: of each phrase the mean over its tokens, as a phrase is pointed at."""
    maps = own_maps(source_named(name), kept)
    return torch.stack([maps[list(tokens)].mean(0) for tokens in phrases]) if phrases else maps[:0]


def _onto(maps: Tensor, view: View, other: View) -> Tensor:
    """Maps [P, C, h * w] of one view on the grid of another."""
    flat = maps.unflatten(2, view.size_hw).flatten(0, 1)
    return resampled(flat, view, other).unflatten(0, maps.shape[:2])
