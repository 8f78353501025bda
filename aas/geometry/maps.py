"""Maps over a view's cells, and masks and pixels of its image: from one to the other."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from aas.records import View

PixelBox = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open

AS_FINE = 0.6  # crops of one image differ by pixels at its edge; the whole image has at most half of a crop's cells


def combined_map(parts: Sequence[tuple[np.ndarray, View]]) -> tuple[np.ndarray, View]:
    """Several views of one image as one map on the grid of the finest of them, "combined"; where others lie beside that
    one, as fine, on a grid of its cells that reaches all of these.

    `parts`: maps [..., h, w] and their views. A coarser view's attention is spread over the finer cells (bilinear,
    attention per pixel kept), so that the sum stays about the attention that went to all views. Where a view does not
    reach, it adds nothing.
    """
    view = _reaching_all_fine([part[1] for part in parts])
    height, width = view.size_hw
    x0, y0, x1, y1 = view.box_xyxy
    centres_x = torch.linspace(x0, x1, 2 * width + 1)[1::2]
    centres_y = torch.linspace(y0, y1, 2 * height + 1)[1::2]
    total = np.zeros((*parts[0][0].shape[:-2], height, width), np.float32)
    for maps, other in parts:
        left, top, right, bottom = other.box_xyxy
        x = (centres_x - left) / (right - left) * 2 - 1
        y = (centres_y - top) / (bottom - top) * 2 - 1
        where = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)[None]
        inside = (where.abs() <= 1).all(-1)[0]
        flat = torch.from_numpy(np.ascontiguousarray(maps)).reshape(1, -1, *other.size_hw)
        sampled = F.grid_sample(flat, where.float(), mode="bilinear", padding_mode="border", align_corners=False)
        scale = _cells_per_pixel(other) / _cells_per_pixel(view)
        total += (sampled[0] * inside * scale).reshape(total.shape).numpy()
    return total, View(view.size_hw, view.box_xyxy, "combined")


def _reaching_all_fine(views: Sequence[View]) -> View:
    finest = max(views, key=_cells_per_pixel)
    boxes = [view.box_xyxy for view in views if _cells_per_pixel(view) > AS_FINE * _cells_per_pixel(finest)]
    if len(boxes) == 1:
        return finest
    (x0, y0, x1, y1), (height, width) = finest.box_xyxy, finest.size_hw
    left, top = np.min(boxes, 0)[:2].tolist()
    right, bottom = np.max(boxes, 0)[2:].tolist()
    size_hw = round((bottom - top) / (y1 - y0) * height), round((right - left) / (x1 - x0) * width)
    return View(size_hw, (left, top, right, bottom))


def _cells_per_pixel(view: View) -> float:
    x0, y0, x1, y1 = view.box_xyxy
    return view.size_hw[0] * view.size_hw[1] / ((x1 - x0) * (y1 - y0))


def cell_coverage(view: View, box_xyxy: tuple[float, float, float, float]) -> np.ndarray:
    """The share of each cell of `view` that a rectangle of the image covers, float [h, w]."""
    height, width = view.size_hw
    left, top, right, bottom = view.box_xyxy
    x, y = np.linspace(left, right, width + 1), np.linspace(top, bottom, height + 1)
    overlap_x = np.clip(np.minimum(x[1:], box_xyxy[2]) - np.maximum(x[:-1], box_xyxy[0]), 0, None) / np.diff(x)
    overlap_y = np.clip(np.minimum(y[1:], box_xyxy[3]) - np.maximum(y[:-1], box_xyxy[1]), 0, None) / np.diff(y)
    return overlap_y[:, None] * overlap_x


def cells_of_mask(mask: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """How many pixels of each cell lie in `mask` bool [H, W], and how many outside of it, float [h, w] each.

    Pixels that the view does not cover count nowhere; of a cell beyond the image only the part on the image counts.
    """
    height, width = mask.shape
    rows, columns = view.size_hw
    x0, y0, x1, y1 = view.box_xyxy
    # A running sum, read at the cells' edges, which may lie between pixels.
    total = np.zeros((height + 1, width + 1))
    np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1, out=total[1:, 1:])
    x = np.clip(np.linspace(x0, x1, columns + 1), 0, width)
    y = np.clip(np.linspace(y0, y1, rows + 1), 0, height)
    at_rows = _between(total, y)
    at_edges = _between(at_rows.T, x).T
    inside = np.diff(np.diff(at_edges, axis=0), axis=1)
    return inside, np.diff(y)[:, None] * np.diff(x) - inside


def pixels_of_cells(chosen: np.ndarray, view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """The pixels of the image, bool [H, W], whose centre lies in one of the `chosen` cells of `view`, bool [h, w]."""
    (rows, columns), (x0, y0, x1, y1) = view.size_hw, view.box_xyxy
    y = np.floor((np.arange(image_hw[0]) + 0.5 - y0) * rows / (y1 - y0)).astype(int)
    x = np.floor((np.arange(image_hw[1]) + 0.5 - x0) * columns / (x1 - x0)).astype(int)
    is_covered = ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns))
    return chosen[y.clip(0, rows - 1)][:, x.clip(0, columns - 1)] & is_covered


def _between(table: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows of `table` at fractional indices, linearly."""
    low = np.minimum(at.astype(int), len(table) - 2)
    share = (at - low)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share


def map_on_image(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """Bicubic (align_corners=False) from the grid to the image's pixels, float32 [H, W].

    Pixels that the view does not cover get the map's minimum: nothing is known there. A padded view is upsampled to
    the padded square and cropped, exactly as the reference does.
    """
    x0, y0, x1, y1 = whole_pixels(view)
    covered = bicubic(grid_map, (y1 - y0, x1 - x0))
    left, top, right, bottom = covered_part(view, image_hw)
    inside = covered[top - y0 : bottom - y0, left - x0 : right - x0]
    if inside.shape == image_hw:
        return inside
    image_map = np.full(image_hw, covered.min(), np.float32)
    image_map[top:bottom, left:right] = inside
    return image_map


def otsu_mask(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """The pixels of the image, bool [H, W], whose value of `map_on_image` is above Otsu's threshold (of 256 levels);
    none of a constant map."""
    image_map = map_on_image(grid_map, view, image_hw)
    low, high = image_map.min(), image_map.max()
    if high - low <= 1e-5 * max(abs(low), abs(high)):  # what rounding leaves: up to 3.1e-6 was seen
        return np.zeros(image_hw, bool)
    levels = ((image_map - low) * (255 / (high - low))).astype(np.uint8)
    return cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)[1].astype(bool)


def bicubic(grid_map: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """`grid_map` [h, w] to float32 [H, W], as torch does it (align_corners=False)."""
    grid = torch.from_numpy(np.ascontiguousarray(grid_map, dtype=np.float32))[None, None]
    return F.interpolate(grid, size=size_hw, mode="bicubic", align_corners=False)[0, 0].numpy()


def whole_pixels(view: View) -> PixelBox:
    """The view's rectangle, rounded to pixels: at least one, the one at the centre of what is narrower."""
    x0, y0, x1, y1 = view.box_xyxy
    (left, right), (top, bottom) = _whole(x0, x1), _whole(y0, y1)
    return left, top, right, bottom


def _whole(start: float, end: float) -> tuple[int, int]:
    first, last = round(start), round(end)
    if first < last:
        return first, last
    centre = math.floor((start + end) / 2)
    return centre, centre + 1


def covered_part(view: View, image_hw: tuple[int, int], within_xyxy: PixelBox | None = None) -> PixelBox:
    """The pixels of the image, or of a rectangle of it, that the view covers; (x, y, x, y) where there are none."""
    x0, y0, x1, y1 = whole_pixels(view)
    left, top, right, bottom = within_xyxy or (0, 0, image_hw[1], image_hw[0])
    left, top = max(left, x0, 0), max(top, y0, 0)
    return left, top, max(left, min(right, x1, image_hw[1])), max(top, min(bottom, y1, image_hw[0]))
