"""The masks that a segmenter gives for phrases and their prompts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aas.choices import MaskChoice
from aas.pointing.phrases import Pointed
from aas.pointing.prompts import stacked
from aas.segmenters.base import Candidates, ImageEmbedding, Segmenter
from aas.segmenters.choice import choose

MAX_MASK_PIXELS = 100_000_000  # of all candidate masks that exist at once, three a phrase
CALLS_AT_ONCE = 16  # mostly as many photographs, whose coarse masks are there at once


@dataclass(frozen=True)
class PhraseMasks:
    """`masks` bool [n, H, W] of one phrase, at the photograph's size, and the segmenter's `scores` float32 [n] of them:
    the chosen one (n = 1), or all that it proposed."""

    masks: np.ndarray
    scores: np.ndarray


def phrase_masks(
    segmenter: Segmenter, embedding: ImageEmbedding, pointed: Sequence[Pointed], choice: MaskChoice | None
) -> list[PhraseMasks]:
    """Masks for each phrase of one photograph, in order: one, or with `choice` None all that the segmenter proposes.

    `embedding`: what the segmenter's `encode` made of the photograph, once for however many answers. Raises ValueError
    where the segmenter's masks are not of the photograph's size.
    """
    (found,) = masks_of_each(segmenter, [(embedding, pointed)], choice)
    return found


def masks_of_each(
    segmenter: Segmenter, asked: Sequence[tuple[ImageEmbedding | None, Sequence[Pointed]]], choice: MaskChoice | None
) -> Iterator[list[PhraseMasks]]:
    """As `phrase_masks`, for several photographs, in order; one without phrases needs no embedding. Where the segmenter
    can, prompts of several photographs are decoded together."""
    calls = [list(_calls(segmenter, *one)) for one in asked]
    made = _decoded(segmenter, [call for of_photograph in calls for call in of_photograph])
    for (embedding, pointed), of_photograph in zip(asked, calls, strict=True):
        found: dict[int, PhraseMasks] = {}
        for call in of_photograph:
            ones = [pointed[i] for i in call.indices]
            # Its candidates are let go of before the next are made: they may be large.
            found |= dict(zip(call.indices, _chosen(next(made), ones, choice), strict=True))
        if embedding is not None:
            _check_size(found.values(), embedding.size_hw)
        yield [found[i] for i in range(len(pointed))]


@dataclass(frozen=True)
class _Call:
    """Prompts of one kind on a photograph, those of the phrases `indices`; `given`: arguments of `Segmenter.masks`."""

    indices: list[int]
    embedding: ImageEmbedding
    given: dict[str, Any]


def _calls(segmenter: Segmenter, embedding: ImageEmbedding | None, pointed: Sequence[Pointed]) -> Iterator[_Call]:
    if embedding is None:
        return
    # One decoder batch for a photograph of usual size; a huge one goes in parts, since its masks are huge too.
    part = max(1, MAX_MASK_PIXELS // (3 * embedding.size_hw[0] * embedding.size_hw[1]))
    for indices, prompts in stacked([one.prompt for one in pointed]):
        for start in range(0, len(indices), part):
            here = indices[start : start + part]
            given: dict[str, Any] = {k: v[start : start + part] for k, v in prompts.items()}
            if getattr(segmenter, "wants_maps", False):
                given["maps"] = [(pointed[i].map, pointed[i].view) for i in here]
            yield _Call(here, embedding, given)


def _decoded(segmenter: Segmenter, calls: Sequence[_Call]) -> Iterator[Candidates]:
    """Of each call, in order, a few calls at once where the segmenter takes several."""
    together = getattr(segmenter, "masks_together", None)
    if together is None:
        yield from (segmenter.masks(call.embedding, **call.given) for call in calls)
        return
    for start in range(0, len(calls), CALLS_AT_ONCE):
        yield from together([(call.embedding, call.given) for call in calls[start : start + CALLS_AT_ONCE]])


def _chosen(candidates: Candidates, pointed: Sequence[Pointed], choice: MaskChoice | None) -> Iterator[PhraseMasks]:
    if choice is None:
        yield from (PhraseMasks(*both) for both in zip(candidates.masks, candidates.scores, strict=True))
        return
    # To make masks large is dear: all of them only for the choice that looks at them.
    seen = candidates.masks if choice == "best-attention" else [()] * len(candidates.scores)
    rows = zip(seen, candidates.scores, pointed, strict=True)
    which = np.array([choose(choice, masks, scores, one.map, one.view) for masks, scores, one in rows])
    for mask, scores, i in zip(candidates.chosen(which), candidates.scores, which, strict=True):
        yield PhraseMasks(mask[None], scores[i : i + 1])


def _check_size(found: Iterable[PhraseMasks], size_hw: tuple[int, int]) -> None:
    for one in found:
        if one.masks.shape[1:] != size_hw:
            raise ValueError(
                f"The segmenter's masks are {one.masks.shape[1:]}, the photograph is {size_hw} pixels (H, W)."
            )
