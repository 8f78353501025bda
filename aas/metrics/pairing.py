"""Which predicted mask goes with which true one: IoU on run lengths, and greedy one-to-one pairs."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from aas.rle import Rle


def iou_matrix(predicted: Sequence[Rle], true: Sequence[Rle]) -> np.ndarray:
    """float64 [predicted, true], without decoding; 0 where both are empty, and between masks of different sizes."""
    if not predicted or not true:
        return np.zeros((len(predicted), len(true)))
    # pycocotools says -1 for different sizes.
    return np.maximum(coco_mask.iou(list(predicted), list(true), [0] * len(true)), 0.0)


def greedy_pairs(ious: np.ndarray) -> list[tuple[int, int, float]]:
    """One-to-one pairs (row, column, IoU), best first, until the best is 0; ties go to the first row, then column.

    A matrix that holds NaN has no best pair, and no pairs (the published evaluator's arithmetic).
    """
    ious, found = ious.copy(), []
    while ious.size and ious.max() > 0:
        row, column = divmod(int(ious.argmax()), ious.shape[1])
        found.append((row, column, float(ious[row, column])))
        ious[row, :] = ious[:, column] = 0.0
    return found


def greedy_ious(ious: np.ndarray) -> list[float]:
    """The IoUs of `greedy_pairs`."""
    return [iou for _, _, iou in greedy_pairs(ious)]
