"""From the thing that matters to the part of the photograph that is looked at once more."""

import math

import numpy as np

from aas import rle
from aas.records import BoxXyxy, PixelBox

LEAST_PX = 16  # a crop's side, at least, where the photograph is as large


def box_of(mask: np.ndarray) -> PixelBox | None:
    """The smallest box around a bool mask [H, W]; None around nothing."""
    return rle.box_xyxy(mask) if mask.any() else None


def crop_around(box: BoxXyxy, image_hw: tuple[int, int], scale: float) -> PixelBox:
    """`box`, both its sides times `scale` but at least `LEAST_PX`, about its middle, in whole pixels within an image of
    `image_hw`. A box beyond the image's edge has the pixels that are nearest."""
    x0, y0, x1, y1 = box
    height, width = image_hw
    (left, right), (top, bottom) = _side(x0, x1, width, scale), _side(y0, y1, height, scale)
    return left, top, right, bottom


def _side(start: float, end: float, length: int, scale: float) -> tuple[int, int]:
    half, middle = max((end - start) * scale, LEAST_PX) / 2, (start + end) / 2
    first, last = math.floor(middle - half), math.ceil(middle + half)
    first = min(max(first, 0), max(0, length - LEAST_PX))
    return first, max(min(last, length), min(first + LEAST_PX, length))


def cropped(image: np.ndarray, box: PixelBox) -> np.ndarray:
    """uint8 [h, w, 3]."""
    x0, y0, x1, y1 = box
    return image[y0:y1, x0:x1]
