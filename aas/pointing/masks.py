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
    # One decoder batch for a photograph of usual size; a huge one goes in parts, since its masks are huge too.
    part = max(1, MAX_MASK_PIXELS // (3 * embedding.size_hw[0] * embedding.size_hw[1]))
    found: dict[int, PhraseMasks] = {}
    for indices, prompts in stacked([one.prompt for one in pointed]):
        for start in range(0, len(indices), part):
            here = indices[start : start + part]
            ones = [pointed[i] for i in here]
            given: dict[str, Any] = {k: v[start : start + part] for k, v in prompts.items()}
            if getattr(segmenter, "wants_maps", False):
                given["maps"] = [(one.map, one.view) for one in ones]
            found |= dict(zip(here, _chosen(segmenter.masks(embedding, **given), ones, choice), strict=True))
    _check_size(found.values(), embedding.size_hw)
    return [found[i] for i in range(len(pointed))]


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
