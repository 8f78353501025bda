"""Figures from per-image evidence, and how sure they are: resamples over images, seeded.

Evidence is JSON: figure -> {"kind": …, columns with one entry per image (or per detection)}. Every kind turns it, and
how often each image counts, into figures; the figures themselves are the case where each counts once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Evidence = Mapping[str, Mapping[str, Any]]
Figures = dict[str, np.ndarray]  # float64 [resamples], NaN where there is nothing to average

LEVEL = (2.5, 97.5)
RECALLS = np.linspace(0, 1, 101)
METEOR_STAGES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
METEOR_ALPHA, METEOR_BETA, METEOR_GAMMA, METEOR_DELTA = 0.85, 0.2, 0.6, 0.75


def resamples(n_images: int, n_resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn, float64 [resamples, images]; the first row draws each once."""
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(n_images, np.full(n_images, 1 / n_images), n_resamples)
    return np.concatenate([np.ones((1, n_images)), drawn])


def figures(evidence: Evidence, weights: np.ndarray) -> Figures:
    """`weights` float64 [resamples, images] -> figure -> float64 [resamples]."""
    found: Figures = {}
    for name, columns in evidence.items():
        found |= KINDS[columns["kind"]](name, columns, weights)
    return found


def intervals(evidence: Evidence, n_images: int, n_resamples: int, seed: int) -> dict[str, list[float]]:
    """95 % interval of each figure, [low, high]."""
    drawn = figures(evidence, resamples(n_images, n_resamples, seed))
    around = {name: _around_figure(values) for name, values in drawn.items()}
    return {name: np.percentile(values, LEVEL).clip(0).tolist() for name, values in around.items() if values.size}


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


def _ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    return np.divide(over, under, out=np.full(np.shape(over), np.nan), where=np.asarray(under) > 0)


def mean(name: str, columns: Mapping[str, Any], weights: np.ndarray) -> Figures:
    """Sum of `values` by the sum of `n`."""
    return {name: _ratio(weights @ np.asarray(columns["values"], float), weights @ np.asarray(columns["n"], float))}


def bleu(name: str, columns: Mapping[str, Any], weights: np.ndarray) -> Figures:
    """Bleu_1 to Bleu_4 of the whole corpus, with pycocoevalcap's small numbers against division by 0."""
    sums = weights @ np.asarray(columns["rows"], float).reshape(-1, 10)
    n_words, n_reference, n_grams, n_right = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    products = np.cumprod((n_right + 1e-15) / (n_grams + 1e-9), axis=1)
    ratio = (n_words + 1e-15) / (n_reference + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return {f"{name}_{k}": products[:, k - 1] ** (1 / k) * brevity for k in range(1, 5)}


def meteor(name: str, columns: Mapping[str, Any], weights: np.ndarray) -> Figures:
    """METEOR 1.5 of the whole corpus from its statistics (Denkowski and Lavie 2014, English).

    Columns: words and reference's words, function words of both; for each stage content words found in both, function
    words found in both; chunks; words of both in the match.
    """
    rows = np.array(columns["rows"], float).reshape(-1, 23)
    # A caption that is its reference word for word, in one chunk, has no break in it.
    rows[(rows[:, 20] == 1) & (rows[:, 21:23] == rows[:, :2]).all(axis=1), 20] = 0
    sums = weights @ rows
    found = METEOR_STAGES @ sums[:, 4:20].reshape(-1, 4, 4)  # [resamples, content of both, function of both]
    shares = []
    for side in (0, 1):
        n_words, n_function = sums[:, side], sums[:, 2 + side]
        weighted = METEOR_DELTA * found[:, side] + (1 - METEOR_DELTA) * found[:, 2 + side]
        shares.append(
            weighted / np.maximum(METEOR_DELTA * (n_words - n_function) + (1 - METEOR_DELTA) * n_function, 1e-9)
        )
    precision, recall = shares
    f_mean = np.nan_to_num(_ratio(precision * recall, METEOR_ALPHA * precision + (1 - METEOR_ALPHA) * recall))
    fragments = np.nan_to_num(_ratio(sums[:, 20], sums[:, 21:23].mean(axis=1)))
    return {name: f_mean * (1 - METEOR_GAMMA * fragments**METEOR_BETA)}


@dataclass(frozen=True)
class _Category:
    """Detections of one category in COCO's order of images: `right`, `counted` bool [10 thresholds, detections];
    `block_image`, `block_start`, `block_size`: whose they are. `true_image`, `n_masks`: where masks are to be found."""

    scores: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    block_image: np.ndarray
    block_start: np.ndarray
    block_size: np.ndarray
    true_image: np.ndarray
    n_masks: np.ndarray


def average_precision(name: str, columns: Mapping[str, Any], weights: np.ndarray) -> Figures:
    """AP, AP50 and AP75 at all sizes; an image drawn twice has its detections and masks twice."""
    categories = _categories(columns)
    by_threshold = np.stack([_precision_at_thresholds(categories, row.astype(int)) for row in weights])
    return {name: by_threshold.mean(axis=1), f"{name}50": by_threshold[:, 0], f"{name}75": by_threshold[:, 5]}


def _categories(columns: Mapping[str, Any]) -> list[_Category]:
    """Those that have masks to find."""
    right, ignored = (_flags(columns[key]) for key in ("right", "ignored"))
    image, category = (np.asarray(columns[key], int) for key in ("image", "category"))
    scores, to_find = np.asarray(columns["score"], float), np.asarray(columns["to_find"], int).reshape(-1, 3)
    found = []
    for wanted in np.unique(to_find[:, 1]):
        chosen = np.flatnonzero(category == wanted)
        masks = to_find[to_find[:, 1] == wanted]
        starts = np.flatnonzero(np.diff(image[chosen], prepend=-1))
        counted = ~ignored[:, chosen]
        found.append(
            _Category(
                scores[chosen],
                right[:, chosen] & counted,
                counted,
                image[chosen][starts],
                starts,
                np.diff(starts, append=len(chosen)),
                masks[:, 0],
                masks[:, 2],
            )
        )
    return found


def _flags(bits: Sequence[int]) -> np.ndarray:
    """bool [10 thresholds, detections]."""
    return (np.asarray(bits, int) >> np.arange(10)[:, None] & 1).astype(bool)


def _precision_at_thresholds(categories: Sequence[_Category], times: np.ndarray) -> np.ndarray:
    """COCO's 101-point AP at each of ten thresholds, mean over the categories that have masks; float64 [10].

    `times`: how often each image counts.
    """
    found = []
    for category in categories:
        n_masks = int(times[category.true_image] @ category.n_masks)
        if n_masks:
            order = _drawn(category, times)
            found.append(_interpolated(category.right[:, order], category.counted[:, order], n_masks))
    return np.mean(found, axis=0) if found else np.full(10, np.nan)


def _drawn(category: _Category, times: np.ndarray) -> np.ndarray:
    """Places of the detections of the images that are drawn, copies behind each other, by falling score."""
    blocks = np.repeat(np.arange(len(category.block_image)), times[category.block_image])
    sizes = category.block_size[blocks]
    first = np.cumsum(sizes) - sizes
    places = np.arange(sizes.sum()) + np.repeat(category.block_start[blocks] - first, sizes)
    return places[np.argsort(-category.scores[places], kind="stable")]


def _interpolated(right: np.ndarray, counted: np.ndarray, n_masks: int) -> np.ndarray:
    n_right = np.cumsum(right, axis=1)
    precision = n_right / (np.cumsum(counted, axis=1) + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Beyond the last recall precision is 0.
    envelope = np.concatenate([envelope, np.zeros((len(envelope), 1))], axis=1)
    places = [np.searchsorted(row, RECALLS) for row in n_right / n_masks]
    return np.take_along_axis(envelope, np.stack(places), axis=1).mean(axis=1)


KINDS: dict[str, Callable[[str, Mapping[str, Any], np.ndarray], Figures]] = {
    "mean": mean,
    "bleu": bleu,
    "meteor": meteor,
    "detections": average_precision,
}
