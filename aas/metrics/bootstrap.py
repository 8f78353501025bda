"""Figures from per-image evidence, and how sure they are: resamples over images, seeded.

Evidence is JSON: figure -> {"kind": …, columns with one entry per image (or per detection)}. Every kind, a function
that `registry.EVIDENCE_KINDS` names, turns it, and how often each image counts, into figures; the figures themselves
are the case where each counts once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aas import registry

Columns = Mapping[str, Any]
Evidence = Mapping[str, Columns]
Figures = dict[str, np.ndarray]  # float64 [resamples], NaN where there is nothing to average

LEVEL = (2.5, 97.5)
SIGNED = ("signed_mean",)  # kinds of figures that may lie below 0


def resamples(n_images: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn, float64 [resamples, images]; the first row draws each once."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_images, np.full(n_images, 1 / n_images), n_resamples)
    return np.concatenate([np.ones((1, n_images)), drawn])


def figures(evidence: Evidence, weights: np.ndarray) -> Figures:
    """`weights` float64 [resamples, images] -> figure -> float64 [resamples]."""
    found: Figures = {}
    for name, columns in evidence.items():
        kind = registry.load(registry.EVIDENCE_KINDS, columns["kind"], "kind of evidence")
        found |= kind(name, columns, weights)
    return found


def intervals(evidence: Evidence, n_images: int, n_resamples: int, seed: int) -> dict[str, list[float]]:
    """95 % interval of each figure, [low, high]; from 0 on, where a figure cannot be less."""
    weights, found = resamples(n_images, n_resamples, seed), {}
    for of, columns in evidence.items():
        least = -np.inf if columns["kind"] in SIGNED else 0
        for name, values in figures({of: columns}, weights).items():
            around = _around_figure(values)
            if around.size:
                found[name] = np.percentile(around, LEVEL).clip(least).tolist()
    return found


def _around_figure(values: np.ndarray) -> np.ndarray:
    """The resamples, moved so that their mean is the figure itself (the first value); nothing where there is none.

    AP is larger in resamples: copies of an image are right together.
    """
    drawn = values[1:][~np.isnan(values[1:])]
    return drawn - drawn.mean() + values[0] if drawn.size and not np.isnan(values[0]) else drawn[:0]


def differences(
    first: Evidence, second: Evidence, common: Sequence[tuple[int, int]], sizes: tuple[int, int], n: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Second minus first over the images that both have, with the same images in every resample of both.

    `common`: their places in the two runs; `sizes`: how many images those have. `p`: twice the share of resamples
    on the rarer side of 0.
    """
    drawn = resamples(len(common), n, seed)
    both = []
    for evidence, places, n_images in zip((first, second), zip(*common, strict=True), sizes, strict=True):
        weights = np.zeros((len(drawn), n_images))
        weights[:, list(places)] = drawn
        both.append(figures(evidence, weights))
    found = {}
    for name, a in both[0].items():
        b = both[1].get(name, np.full(len(a), np.nan))
        change = _around_figure(b - a)
        if change.size:
            found[name] = {
                "a": float(a[0]),
                "b": float(b[0]),
                "difference": float(b[0] - a[0]),
                "interval": np.percentile(change, LEVEL).tolist(),
                "p": min(1.0, 2 * min(float(np.mean(change <= 0)), float(np.mean(change >= 0)))),
            }
    return found
