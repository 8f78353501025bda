"""One map per phrase, of the maps of its tokens."""

from collections.abc import Sequence

import numpy as np

from aas.choices import Merge


def phrase_map(maps: np.ndarray, token_indices: Sequence[int], merge: Merge) -> np.ndarray:
    """Merge the maps of a phrase's tokens: `maps` float32 [tokens, h, w] to float32 [h, w]."""
    chosen = maps[list(token_indices)]
    if merge == "first":
        return chosen[0]
    return chosen.mean(axis=0) if merge == "mean" else chosen.max(axis=0)
