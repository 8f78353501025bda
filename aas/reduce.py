"""From one map per token to one map per phrase; the presets of the method."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Merge = Literal["mean", "max", "first"]


@dataclass(frozen=True)
class Preset:
    """`heads`: indices averaged in every layer (None = all); `merge`: how the tokens of a phrase become one map."""

    heads: tuple[int, ...] | None
    merge: Merge


PRESETS = {
    "paper": Preset(heads=None, merge="mean"),
    "reference-2024": Preset(heads=(-2,), merge="mean"),
    "reference-2025": Preset(heads=None, merge="max"),
}


def without_token_mean(maps: np.ndarray) -> np.ndarray:
    """What is specific to each token: `maps` [tokens, h, w] minus their mean over the answer's tokens (section 3.2 of
    arXiv 2410.08209). Of a single token nothing would remain, so it stays as it is."""
    return maps - maps.mean(axis=0, keepdims=True) if len(maps) > 1 else maps


def phrase_map(maps: np.ndarray, token_indices: Sequence[int], merge: Merge) -> np.ndarray:
    """Merge the maps of a phrase's tokens, float32 [h, w]."""
    chosen = maps[list(token_indices)]
    if merge == "first":
        return chosen[0]
    return chosen.mean(axis=0) if merge == "mean" else chosen.max(axis=0)
