"""Phrases as the objects of a picture: each thing once, or each pixel once."""

from collections.abc import Sequence

import numpy as np

from aas import rle
from aas.export.photograph import Found
from aas.metrics.pairing import iou_matrix

SAME_FROM_IOU = 0.95
SHARED = "on {} photographs masks overlap: each pixel of several went to the smallest"


def each_once(found: Sequence[Found]) -> tuple[Found, ...]:
    """Without what an earlier one of the same class has the mask of (IoU of 0.95 or more): "a dog … the dog"."""
    kept: list[Found] = []
    for one in found:
        alike = [other.mask for other in kept if other.label == one.label]
        if not (iou_matrix([one.mask], alike) >= SAME_FROM_IOU).any():
            kept.append(one)
    return tuple(kept)


def each_pixel_once(found: Sequence[Found], size_hw: tuple[int, int]) -> tuple[np.ndarray, int]:
    """int32 [H, W]: of each pixel the number of the thing there, from 1, or 0; and how many pixels had several.

    A pixel of several is the smallest one's, which the others would hide; of equal ones the first's.
    """
    order = sorted(range(len(found)), key=lambda i: (-found[i].area, -i))
    numbers, claimed = np.zeros(size_hw, np.int32), np.zeros(size_hw, np.int32)
    for i in order:
        mask = rle.decoded(found[i].mask)
        numbers[mask] = i + 1
        claimed += mask
    return numbers, int((claimed > 1).sum())
