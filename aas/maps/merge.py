"""What points: the maps of an answer's tokens, and one map per phrase, of those of its tokens."""

from collections.abc import Sequence

import numpy as np

from aas.choices import Merge
from aas.maps import subtracts_token_mean
from aas.maps.mean import without_token_mean
from aas.records import AttentionMaps


def pointing_maps(
    attention: AttentionMaps, tokens: Sequence[Sequence[int]], merge: Merge, counted: Sequence[int] | None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The answer's maps float32 [tokens, h, w], minus their mean where their source wants it, and of each phrase its
    map [h, w]. `tokens` of each phrase; `counted`: the tokens whose mean is taken away, None for all."""
    maps = attention.maps
    residual = without_token_mean(maps, counted) if subtracts_token_mean(attention.source) else maps
    n_counted = len(maps) if counted is None else len(counted)
    # Of a phrase that is the whole answer nothing specific would remain, as of a single token.
    of_phrases = [phrase_map(maps if len(of) == n_counted else residual, of, merge) for of in tokens]
    return residual, of_phrases


def phrase_map(maps: np.ndarray, token_indices: Sequence[int], merge: Merge) -> np.ndarray:
    """Merge the maps of a phrase's tokens: `maps` float32 [tokens, h, w] to float32 [h, w]."""
    chosen = maps[list(token_indices)]
    if merge == "first":
        return chosen[0]
    return chosen.mean(axis=0) if merge == "mean" else chosen.max(axis=0)
