"""Which of the masks that a segmenter proposes is the phrase's?"""

from collections.abc import Sequence

import numpy as np

from aas.choices import MaskChoice
from aas.geometry import cells_of_mask
from aas.records import View


def choose(
    choice: MaskChoice, masks: Sequence[np.ndarray], scores: np.ndarray, grid_map: np.ndarray, view: View
) -> int:
    """The index of one of K `masks` bool [H, W]; for all choices but `best-attention` none need be there.

    `last` is what the reference takes of SAM's three; `best-score` the largest of `scores` float [K]; `best-attention`
    the mask whose inside has the largest mean attention above its outside, by `grid_map` float [h, w] over `view`.
    """
    if choice == "last":
        return len(scores) - 1
    if choice == "best-score":
        return int(scores.argmax())
    return int(np.argmax([attention_contrast(mask, grid_map, view) for mask in masks]))


def attention_contrast(mask: np.ndarray, grid_map: np.ndarray, view: View) -> float:
    """Mean attention per cell of `grid_map` float [h, w] inside `mask` bool [H, W] minus that outside; -inf for a mask
    that covers nothing of the view."""
    inside, outside = cells_of_mask(mask, view)
    if not inside.any():
        return -np.inf
    mean_inside = float((grid_map * inside).sum() / inside.sum())
    return mean_inside - (float((grid_map * outside).sum() / outside.sum()) if outside.any() else 0.0)
