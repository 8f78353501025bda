"""What speaks for a phrase being in the picture, number by number."""

from collections.abc import Sequence
from itertools import combinations
from math import log

import numpy as np

from aas.choices import Merge
from aas.maps.merge import pointing_maps
from aas.phrases.likelihood import least_log_prob
from aas.records import Answer, AttentionMaps, Phrase

Signals = dict[str, float]


def signals_of(
    answer: Answer,
    attention: AttentionMaps,
    phrases: Sequence[Phrase],
    merge: Merge,
    counted: Sequence[int] | None,
) -> list[Signals]:
    """Of each phrase those that are known.

    `word`: the least log p of its tokens, by the model itself; `peak`: how many standard deviations the largest cell of
    its map lies above the mean; `entropy`: of what the map has above 0, over that of a flat map; `agreement`: the mean
    correlation over cells of the maps of all pairs of sources; `margin`: the mean of what `AttentionMaps.margins` says
    of its tokens. `merge` and `counted` as for `pointing_maps`.
    """
    tokens = [phrase.token_indices for phrase in phrases]
    by_source = [pointing_maps(attention.of(name), tokens, merge, counted)[1] for name in attention.sources]
    margins = attention.margins
    found = []
    for phrase, maps in zip(phrases, zip(*by_source, strict=True), strict=True):
        known: dict[str, float | None] = {
            "word": least_log_prob(answer, phrase),
            "peak": _peak(maps[0]),
            "entropy": _entropy(maps[0]),
            "agreement": _agreement(maps),
            "margin": None if margins is None else float(margins[list(phrase.token_indices)].mean()),
        }
        found.append({name: value for name, value in known.items() if value is not None})
    return found


def _peak(grid_map: np.ndarray) -> float:
    """0 for a constant map."""
    deviation = float(grid_map.std())
    return float(grid_map.max() - grid_map.mean()) / deviation if deviation else 0.0


def _entropy(grid_map: np.ndarray) -> float:
    """From 0, all in one cell, to 1; also of a map with nothing above 0."""
    above = grid_map.clip(0).ravel().astype(np.float64)
    share = above[above > 0] / above.sum() if above.any() else np.ones(1)
    return float(-(share * np.log(share)).sum()) / log(above.size) if above.any() and above.size > 1 else 1.0


def _agreement(maps: Sequence[np.ndarray]) -> float | None:
    """None of a single source; a constant map agrees with none."""
    standard = [_standardised(one.ravel().astype(np.float64)) for one in maps]
    pairs = [float((one * other).mean()) for one, other in combinations(standard, 2)]
    return float(np.mean(pairs)) if pairs else None


def _standardised(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation else np.zeros_like(values)
