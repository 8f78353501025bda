"""Which of a segmenter's three masks is the phrase's?"""

from typing import Literal

import numpy as np

from aas.geometry import cells_of_mask
from aas.records import View

MaskChoice = Literal["last", "best-score", "best-attention"]
CHOICES = ("last", "best-score", "best-attention")


def choose(choice: MaskChoice, masks: np.ndarray, scores: np.ndarray, grid_map: np.ndarray, view: View) -> int:
    """The index of one of `masks` bool [3, H, W].

    `last` is what the reference takes; `best-score` the largest of `scores` [3]; `best-attention` the mask whose
    inside has the largest mean attention above its outside, by `grid_map` [h, w] over `view`.
    """
    if choice == "last":
        return len(masks) - 1
    if choice == "best-score":
        return int(scores.argmax())
    return int(np.argmax([attention_contrast(mask, grid_map, view) for mask in masks]))


def attention_contrast(mask: np.ndarray, grid_map: np.ndarray, view: View) -> float:
    """Mean attention per cell inside the mask minus that outside; -inf for a mask that covers nothing of the view."""
    inside, outside = cells_of_mask(mask, view)
    if not inside.any():
        return -np.inf
    mean_inside = float((grid_map * inside).sum() / inside.sum())
    return mean_inside - (float((grid_map * outside).sum() / outside.sum()) if outside.any() else 0.0)
