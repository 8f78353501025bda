"""Specks of a mask: islands and holes too small to mean anything."""

import cv2
import numpy as np

SMALLEST = 0.001  # of the mask's area


def without_specks(mask: np.ndarray, smallest: float = SMALLEST) -> np.ndarray:
    """`mask` bool [H, W] without islands, and with its holes filled, of less than `smallest` times its area.

    Pixels that touch at a corner are one island; a hole is connected by sides. The largest island always stays.
    """
    limit = smallest * mask.sum()
    kept = mask & ~_small(mask, limit, connectivity=8, spare_largest=True)
    return kept | _small(~kept, limit, connectivity=4, spare_largest=False)


def _small(mask: np.ndarray, limit: float, connectivity: int, spare_largest: bool) -> np.ndarray:
    """Pixels of the parts of `mask` with fewer than `limit` pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < limit
    small[0] = False  # what is not of the mask
    if spare_largest and len(areas) > 1:
        small[1 + areas[1:].argmax()] = False
    return small[parts]
