"""Masks as COCO run lengths: any COCO segmentation in, one checked form out, and what can be asked without decoding.

Runs go down the columns, first of zeros, then of ones (`pycocotools.mask`). A mask whose runs do not fill its picture
makes that library run forever, so nothing reaches it unchecked.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from aas.spellings import number_of, whole_of

MAX_SIDE = 30_000  # of a picture, in pixels; what is drawn further out would take forever
Rle = dict[str, Any]  # {"size": [height, width], "counts": compressed runs, str}


def compressed(segmentation: Any, size_hw: tuple[int, int]) -> Rle:
    """Polygons `[[x, y, …], …]`, runs as numbers or compressed runs -> compressed runs.

    `size_hw`: of the image, for polygons, which do not say it. Raises ValueError for what is no mask.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size_hw)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("neither polygons nor run lengths")
    counts = segmentation["counts"]
    size = _size(segmentation["size"])
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    found = _listed(counts) if isinstance(counts, list) else _parsed(counts)
    if (found < 0).any() or found.sum() != size[0] * size[1]:
        raise ValueError(f"a mask's runs cover {found.sum()} of {size[0]}×{size[1]} pixels")
    if isinstance(counts, list):
        return _as_text(coco_mask.frPyObjects({"size": size, "counts": found.tolist()}, *size))
    return {"size": size, "counts": counts}


def side_of(value: Any) -> int | None:
    """A height or width in pixels, however it is spelled; None where it can be none."""
    side = whole_of(value)
    return side if side is not None and 0 <= side <= MAX_SIDE else None


def _size(value: Any) -> list[int]:
    sides = [side_of(side) for side in value] if isinstance(value, (list, tuple)) else []
    if len(sides) != 2 or None in sides:
        raise ValueError(f"a mask's size is {value!r}")
    return [side for side in sides if side is not None]


def _listed(counts: list[Any]) -> np.ndarray:
    runs = [whole_of(n) for n in counts]
    if not all(n is not None and 0 <= n <= MAX_SIDE**2 for n in runs):
        raise ValueError("a mask's runs are not all whole numbers of pixels")
    return np.array(runs, np.int64)


def _from_polygons(polygons: list[Any], size_hw: tuple[int, int]) -> Rle:
    """What has less than three points, as annotation tools leave behind, has no inside: COCO draws nothing for it."""
    if not polygons:
        raise ValueError("a mask without polygons")
    drawn = [polygon for polygon in map(_coordinates, polygons) if len(polygon) >= 6]
    if not drawn:
        raise ValueError("none of its polygons has three points")
    if 0 in size_hw:
        raise ValueError("polygons of an image whose height and width are not said")
    return union(coco_mask.frPyObjects(drawn, *size_hw))


def _coordinates(polygon: Any) -> list[float]:
    found = [number_of(number) for number in polygon] if isinstance(polygon, list) else [None]
    if not all(number is not None and abs(number) <= MAX_SIDE for number in found):
        raise ValueError("a polygon is no list of numbers x, y, x, y, …, or lies far outside")
    return [number for number in found if number is not None]


def _as_text(rle: Rle) -> Rle:
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def of_mask(mask: np.ndarray) -> Rle:
    """Compressed runs of a bool or 0/1 mask [H, W]."""
    return _as_text(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def packed(masks: np.ndarray) -> np.ndarray:
    """Bool [n, H, W] as bits, uint8 [n, ceil(H * W / 8)]: an eighth of the bytes between two processes."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def of_packed(bits: np.ndarray, size_hw: tuple[int, int]) -> list[Rle]:
    """COCO run lengths of packed masks."""
    height, width = size_hw
    masks = np.unpackbits(bits, axis=1, count=height * width)
    return [of_mask(mask) for mask in masks.reshape(-1, height, width)]


def empty(size_hw: Sequence[int]) -> Rle:
    """A mask of `size_hw` without a pixel."""
    height, width = size_hw
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width))


def decoded(rle: Rle) -> np.ndarray:
    """bool [H, W] of checked run lengths."""
    return coco_mask.decode(rle).astype(bool)


def box_xyxy(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The smallest box around the true pixels of a bool mask [H, W], half-open; zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0, 0, 0, 0
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def union(masks: Sequence[Rle]) -> Rle:
    """Of masks of one size."""
    return _as_text(coco_mask.merge(masks))


def runs(rle: Rle) -> np.ndarray:
    """Lengths of the runs of compressed run lengths, int64: zeros, ones, zeros, …"""
    return _parsed(rle["counts"])


def _parsed(counts: Any) -> np.ndarray:
    """COCO's text of runs: 5 bits a character, low ones first, 32 = more follow, 16 of the last = negative; from the
    fourth run on the difference to the run two before."""
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except (AttributeError, UnicodeEncodeError) as error:
        raise ValueError("a mask's runs are no text of COCO's kind") from error
    if not len(codes):
        return codes
    if codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("a mask's runs are damaged or cut off")
    starts = np.flatnonzero(np.concatenate([[True], codes[:-1] & 32 == 0]))
    lengths = np.diff(starts, append=len(codes))
    if lengths.max() > 7:  # 35 bits: no picture has such runs
        raise ValueError("a mask's runs are damaged")
    shifts = 5 * (np.arange(len(codes)) - np.repeat(starts, lengths))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= (codes[starts + lengths - 1] & 16 != 0) * (np.int64(1) << 5 * lengths)
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def area(rle: Rle) -> int:
    """Pixels of a mask."""
    return int(coco_mask.area(rle))


def covers(rle: Rle, point_xy: Sequence[float]) -> bool:
    """Whether the pixel of a point `[x, y]` belongs to the mask; points outside the picture do not."""
    height, width = rle["size"]
    x, y = (math.floor(value) for value in point_xy)
    if not (0 <= x < width and 0 <= y < height):
        return False
    run = np.searchsorted(np.cumsum(runs(rle)), x * height + y, side="right")
    return bool(run % 2)
