"""COCO's average precision at all sizes, of any resample of the images: evidence of the kind `detections`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aas.metrics.bootstrap import Columns, Figures

RECALLS = np.linspace(0, 1, 101)


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


def average_precision(name: str, columns: Columns, weights: np.ndarray) -> Figures:
    """AP, AP50 and AP75 at all sizes; an image drawn twice has its detections and masks twice."""
    categories = _categories(columns)
    by_threshold = np.stack([_precision_at_thresholds(categories, row.astype(int)) for row in weights])
    return {name: by_threshold.mean(axis=1), f"{name}50": by_threshold[:, 0], f"{name}75": by_threshold[:, 5]}


def _categories(columns: Columns) -> list[_Category]:
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
