"""Pixels and grids: the only place with their arithmetic.

A pixel (x, y) is the square [x, x+1) x [y, y+1); boxes are `box_xyxy` in those coordinates; sizes are `size_hw`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aas.records import View


def stretched_view(grid_hw: tuple[int, int], image_hw: tuple[int, int], name: str = "image") -> View:
    """The whole image was resized to the model's input, its aspect ratio not kept."""
    height, width = image_hw
    return View(grid_hw, (0.0, 0.0, float(width), float(height)), name)


def padded_view(grid_hw: tuple[int, int], image_hw: tuple[int, int]) -> View:
    """The image was padded to a square, centred: offsets (S - W) // 2 and (S - H) // 2 as LLaVA does."""
    height, width = image_hw
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    return View(grid_hw, (float(-left), float(-top), float(side - left), float(side - top)))


def centre_crop_view(grid_hw: tuple[int, int], image_hw: tuple[int, int], resized_short: int, crop: int) -> View:
    """The short side was resized to `resized_short`, then a centred square of `crop` pixels was cut out.

    As CLIP's processor does it, with its integer rounding: the long side is truncated, so is the crop's offset.
    """
    height, width = image_hw
    short, long = min(image_hw), max(image_hw)
    resized_long = int(resized_short * long / short)
    resized_h, resized_w = (resized_short, resized_long) if height <= width else (resized_long, resized_short)
    top, left = (resized_h - crop) // 2, (resized_w - crop) // 2
    scale_x, scale_y = width / resized_w, height / resized_h
    return View(grid_hw, (left * scale_x, top * scale_y, (left + crop) * scale_x, (top + crop) * scale_y))


def placed_view(
    grid_hw: tuple[int, int],
    image_hw: tuple[int, int],
    resized_hw: tuple[int, int],
    input_hw: tuple[int, int],
    top_left: tuple[int, int] = (0, 0),
) -> View:
    """The image was resized to `resized_hw` and put at `top_left` (y, x) into an input of `input_hw` pixels."""
    scale_y, scale_x = image_hw[0] / resized_hw[0], image_hw[1] / resized_hw[1]
    y0, x0 = -top_left[0] * scale_y, -top_left[1] * scale_x
    return View(grid_hw, (x0, y0, x0 + input_hw[1] * scale_x, y0 + input_hw[0] * scale_y))


def long_side_padded_view(grid_hw: tuple[int, int], image_hw: tuple[int, int], side: int, min_side: int) -> View:
    """The long side was resized to `side`, the other in proportion, rounded, and no shorter than `min_side`; then the
    image was padded to a square, centred. As DeepSeek-VL and Janus do it."""
    scale = side / max(image_hw)
    height, width = (max(round(length * scale), min_side) for length in image_hw)
    square = max(height, width)
    return placed_view(
        grid_hw, image_hw, (height, width), (square, square), ((square - height) // 2, (square - width) // 2)
    )


def canvas_view(grid_hw: tuple[int, int], image_hw: tuple[int, int], canvas_hw: tuple[int, int], tile: int) -> View:
    """The image was shrunk in proportion to fit into the canvas, or enlarged to a tile of `tile` pixels, and put into
    the canvas' top left corner. As Mllama does it, with its integer rounding."""
    height, width = image_hw
    target_h, target_w = (min(max(n, tile), most) for n, most in zip(image_hw, canvas_hw, strict=True))
    if target_w / width < target_h / height:
        resized_hw = (min(int(height * (target_w / width)) or 1, target_h), target_w)
    else:
        resized_hw = (target_h, min(int(width * (target_h / height)) or 1, target_w))
    return placed_view(grid_hw, image_hw, resized_hw, canvas_hw)


def letterboxed_view(
    grid_hw: tuple[int, int], image_hw: tuple[int, int], canvas_hw: tuple[int, int], name: str = "image"
) -> View:
    """The image was resized to fit into `canvas_hw` pixels, its aspect ratio kept, and centred there.

    As LLaVA-NeXT's processor does it: the side that does not fill the canvas is rounded up, the offset down.
    """
    height, width = image_hw
    canvas_h, canvas_w = canvas_hw
    resized_h, resized_w = canvas_hw
    if canvas_w / width < canvas_h / height:
        resized_h = min(math.ceil(height * (canvas_w / width)), canvas_h)
    else:
        resized_w = min(math.ceil(width * (canvas_h / height)), canvas_w)
    top, left = (canvas_h - resized_h) // 2, (canvas_w - resized_w) // 2
    scale_x, scale_y = width / resized_w, height / resized_h
    box = (-left * scale_x, -top * scale_y, (canvas_w - left) * scale_x, (canvas_h - top) * scale_y)
    return View(grid_hw, box, name)


def without_rest(view: View, input_hw: tuple[int, int], rest: int) -> View:
    """`view`, of a tower's whole input of `input_hw` pixels, without the last `rest` pixels at the right and the
    bottom: they do not fill a patch, so the tower does not see them."""
    x0, y0, x1, y1 = view.box_xyxy
    height, width = input_hw
    return replace(view, box_xyxy=(x0, y0, x1 - (x1 - x0) * rest / width, y1 - (y1 - y0) * rest / height))


def unpadded_view(view: View, image_hw: tuple[int, int]) -> View:
    """`view`, of a letterboxed image, without the rows or columns that are padding, as LLaVA-NeXT's model drops them:
    equally many on both sides, counted by the image's aspect ratio alone."""
    rows, columns = view.size_hw
    height, width = image_hw
    drop_rows = drop_columns = 0
    if width / height > columns / rows:
        drop_rows = (rows - int(round(height * (columns / width), 7))) // 2
    else:
        drop_columns = (columns - int(round(width * (rows / height), 7))) // 2
    x0, y0, x1, y1 = view.box_xyxy
    x_margin, y_margin = (x1 - x0) / columns * drop_columns, (y1 - y0) / rows * drop_rows
    size_hw = (rows - 2 * drop_rows, columns - 2 * drop_columns)
    return View(size_hw, (x0 + x_margin, y0 + y_margin, x1 - x_margin, y1 - y_margin), view.name)


def stitched_tiles(positions: Tensor, tiles_hw: tuple[int, int], tile_hw: tuple[int, int]) -> Tensor:
    """Tokens that lie tile by tile, row-major over the grid of all tiles together.

    `positions` [R * C * h * w] of `tiles_hw` (R, C) tiles of `tile_hw` (h, w) tokens each, tiles and tokens row-major;
    returned is their [R * h * C * w] order of rows across the tiles.
    """
    return positions.reshape(*tiles_hw, *tile_hw).transpose(1, 2).flatten()


def without_newlines(positions: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Positions [h * (w + 1)] of rows that end with a newline token each, without those: [h * w]."""
    height, width = grid_hw
    return positions.reshape(height, width + 1)[:, :-1].flatten()


def pan_and_scan_views(
    grid_hw: tuple[int, int], image_hw: tuple[int, int], min_crop: int, max_crops: int, min_ratio: float
) -> list[View]:
    """The crops that Gemma 3 makes of a long image along its long side, "crop 1" and so on; none of a shorter one.

    All are equally long, rounded up to whole pixels, but for the last, which gets what is left. `min_crop`: the
    shortest side of a crop in pixels; `min_ratio`: of long to short side, from which on there are crops.
    """
    height, width = image_hw
    short, long = min(image_hw), max(image_hw)
    if long / short < min_ratio:
        return []
    n_crops = min(math.floor(long / short + 0.5), long // min_crop)
    n_crops = min(max(n_crops, 2), max_crops)
    crop = math.ceil(long / n_crops)
    if min(crop, short) < min_crop:
        return []
    views = []
    for i in range(n_crops):
        start, end = float(i * crop), float(min((i + 1) * crop, long))
        box = (start, 0.0, end, float(height)) if width >= height else (0.0, start, float(width), end)
        views.append(View(grid_hw, box, f"crop {i + 1}"))
    return views


def combined_map(parts: Sequence[tuple[np.ndarray, View]]) -> tuple[np.ndarray, View]:
    """Several views of one image as one map on the grid of the finest of them, "combined".

    `parts`: maps [..., h, w] and their views. A coarser view's attention is spread over the finer cells (bilinear,
    attention per pixel kept), so that the sum stays about the attention that went to all views. Where a view does not
    reach, it adds nothing.
    """
    finest, view = max(parts, key=lambda part: _cells_per_pixel(part[1]))
    height, width = view.size_hw
    x0, y0, x1, y1 = view.box_xyxy
    centres_x = torch.linspace(x0, x1, 2 * width + 1)[1::2]
    centres_y = torch.linspace(y0, y1, 2 * height + 1)[1::2]
    total = np.zeros(finest.shape, np.float32)
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


def _cells_per_pixel(view: View) -> float:
    x0, y0, x1, y1 = view.box_xyxy
    return view.size_hw[0] * view.size_hw[1] / ((x1 - x0) * (y1 - y0))


def scaled_view(view: View, scale_xy: tuple[float, float]) -> View:
    """The view in the pixels of a resized image."""
    x0, y0, x1, y1 = view.box_xyxy
    return View(view.size_hw, (x0 * scale_xy[0], y0 * scale_xy[1], x1 * scale_xy[0], y1 * scale_xy[1]), view.name)


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
    height, width = image_hw
    x0, y0, x1, y1 = (round(v) for v in view.box_xyxy)
    grid = torch.from_numpy(np.ascontiguousarray(grid_map, dtype=np.float32))[None, None]
    covered = F.interpolate(grid, size=(y1 - y0, x1 - x0), mode="bicubic", align_corners=False)[0, 0].numpy()
    if (x0, y0, x1, y1) == (0, 0, width, height):
        return covered
    image_map = np.full(image_hw, covered.min(), np.float32)
    top, left, bottom, right = max(y0, 0), max(x0, 0), min(y1, height), min(x1, width)
    image_map[top:bottom, left:right] = covered[top - y0 : bottom - y0, left - x0 : right - x0]
    return image_map


def deepest_xy(mask: np.ndarray) -> tuple[int, int]:
    """The pixel of a bool mask [H, W] that is furthest from its outside (and from the image's border)."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return peak_xy(depth)


def peak_xy(image_map: np.ndarray) -> tuple[int, int]:
    """The pixel of the largest value, the first one in row-major order on ties."""
    y, x = divmod(int(image_map.argmax()), image_map.shape[1])
    return x, y
