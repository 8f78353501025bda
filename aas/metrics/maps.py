"""How well a map says where a thing is, without a segmenter."""

from collections.abc import Sequence

import numpy as np

from aas.geometry import cells_of_mask, otsu_mask
from aas.metrics.auc import area
from aas.records import View


def map_figures(
    grid_map: np.ndarray, view: View, point_xy: tuple[int, int], masks: Sequence[np.ndarray]
) -> dict[str, float]:
    """Of a map float32 [h, w] over `view` and the point that it gives; `masks` bool [H, W]: all of the thing, then any
    parts of it that would do as well.

    `point`: 1 where the point lies on the thing. `AUC`: how often a pixel on it has a larger value than one elsewhere;
    `NSS`: the mean over its pixels of the map standardised over all (both by cells, each as many pixels as it covers).
    `Otsu IoU`: of the pixels above Otsu's threshold, with the mask that fits best.
    """
    inside, outside = (part.ravel() for part in cells_of_mask(masks[0], view))
    mask = otsu_mask(grid_map, view, masks[0].shape)
    return {
        "point": float(masks[0][point_xy[1], point_xy[0]]),
        "AUC": _auc(grid_map.ravel(), inside, outside),
        "NSS": _nss(grid_map.ravel().astype(np.float64), inside, outside),
        "Otsu IoU": best_iou(mask, masks),
    }


def best_iou(mask: np.ndarray, masks: Sequence[np.ndarray]) -> float:
    """Of a mask bool [H, W] with the one of `masks` that it fits best."""
    return max(float((mask & one).sum() / max((mask | one).sum(), 1)) for one in masks)


def _auc(values: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """Of cells that hold so many pixels of either kind; 0.5 where one is missing."""
    return float(np.nan_to_num(area(values, inside, outside), nan=0.5))


def _nss(values: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> float:
    """0 for a constant map, and for a thing that no cell covers."""
    weights = inside + outside
    mean = np.average(values, weights=weights)
    deviation = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    return float((inside * (values - mean)).sum() / (inside.sum() * deviation)) if inside.any() and deviation else 0.0
