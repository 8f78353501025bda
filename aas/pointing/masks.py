"""The masks that a segmenter gives for phrases and their prompts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aas.pointing.phrases import Pointed
from aas.pointing.prompts import stacked
from aas.segmenters.base import ImageEmbedding, MaskCandidates, Segmenter
from aas.segmenters.choice import MaskChoice, choose

MAX_MASK_PIXELS = 100_000_000  # of all candidate masks that exist at once


@dataclass(frozen=True)
class PhraseMasks:
    """`masks` bool [1 or 3, H, W] of one phrase and the segmenter's `scores` of them: the chosen one, or all."""

    masks: np.ndarray
    scores: np.ndarray


def phrase_masks(
    segmenter: Segmenter, embedding: ImageEmbedding, pointed: Sequence[Pointed], choice: MaskChoice | None
) -> list[PhraseMasks]:
    """One mask for each phrase, or with `choice` None all three."""
    # One decoder batch for a photograph of usual size; a huge one goes in parts, since its masks are huge too.
    part = max(1, MAX_MASK_PIXELS // (3 * embedding.size_hw[0] * embedding.size_hw[1]))
    found: dict[int, PhraseMasks] = {}
    for indices, prompts in stacked([one.prompt for one in pointed]):
        for start in range(0, len(indices), part):
            here = indices[start : start + part]
            candidates = segmenter.masks(embedding, **{k: v[start : start + part] for k, v in prompts.items()})
            found |= dict(zip(here, _chosen(candidates, [pointed[i] for i in here], choice), strict=True))
    return [found[i] for i in range(len(pointed))]


def _chosen(candidates: MaskCandidates, pointed: Sequence[Pointed], choice: MaskChoice | None) -> Iterator[PhraseMasks]:
    if choice is None:
        yield from (PhraseMasks(*both) for both in zip(candidates.masks, candidates.scores, strict=True))
        return
    # To make masks large is dear: all of them only for the choice that looks at them.
    seen = candidates.masks if choice == "best-attention" else candidates.logits
    rows = zip(seen, candidates.scores, pointed, strict=True)
    which = np.array([choose(choice, masks, scores, one.map, one.view) for masks, scores, one in rows])
    for mask, scores, i in zip(candidates.chosen(which), candidates.scores, which, strict=True):
        yield PhraseMasks(mask[None], scores[i : i + 1])
