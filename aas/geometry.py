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

PixelBox = tuple[int, int, int, int]  # x0, y0, x1, y1, half-open


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
    x0, y0, x1, y1 = _whole_pixels(view)
    covered = _bicubic(grid_map, (y1 - y0, x1 - x0))
    left, top, right, bottom = _covered_part(view, image_hw)
    inside = covered[top - y0 : bottom - y0, left - x0 : right - x0]
    if inside.shape == image_hw:
        return inside
    image_map = np.full(image_hw, covered.min(), np.float32)
    image_map[top:bottom, left:right] = inside
    return image_map


def _bicubic(grid_map: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    grid = torch.from_numpy(np.ascontiguousarray(grid_map, dtype=np.float32))[None, None]
    return F.interpolate(grid, size=size_hw, mode="bicubic", align_corners=False)[0, 0].numpy()


def _whole_pixels(view: View) -> PixelBox:
    x0, y0, x1, y1 = view.box_xyxy
    return round(x0), round(y0), round(x1), round(y1)


def _covered_part(view: View, image_hw: tuple[int, int], within_xyxy: PixelBox | None = None) -> PixelBox:
    """The pixels of the image, or of a rectangle of it, that the view covers; (x, y, x, y) where there are none."""
    x0, y0, x1, y1 = _whole_pixels(view)
    left, top, right, bottom = within_xyxy or (0, 0, image_hw[1], image_hw[0])
    left, top = max(left, x0, 0), max(top, y0, 0)
    return left, top, max(left, min(right, x1, image_hw[1])), max(top, min(bottom, y1, image_hw[0]))


def deepest_xy(mask: np.ndarray) -> tuple[int, int]:
    """The pixel of a bool mask [H, W] that is furthest from its outside (and from the image's border)."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return peak_xy(depth)


def peak_xy(image_map: np.ndarray) -> tuple[int, int]:
    """The pixel of the largest value, the first one in row-major order on ties."""
    y, x = divmod(int(image_map.argmax()), image_map.shape[1])
    return x, y


def largest_pixel_xy(
    grid_map: np.ndarray, view: View, image_hw: tuple[int, int], within_xyxy: PixelBox | None = None
) -> tuple[int, int]:
    """The pixel where `map_on_image` is largest, the first one in row-major order on ties, by computing few of them.

    Only pixels that the view covers count, and of these, where `within_xyxy` is given, only those of that rectangle.

    Bicubic interpolation goes along the rows, then along the columns, and where a side keeps its size its weights are
    exactly 0 and 1. So it is done here in the same two steps, bit by bit the same, the second one only for the columns
    that may hold the largest pixel. Between two cells a column is a cubic, which stays below the largest of its
    four Bézier coefficients: where this lies below a value that is known to occur, no pixel can be the largest.

    Raises ValueError when the view does not reach the rectangle, or the map is not finite.
    """
    if not np.isfinite(grid_map).all():
        raise ValueError("The attention map holds NaN or infinite values: the model overflowed. Try another dtype.")
    x0, y0, x1, y1 = _whole_pixels(view)
    left, top, right, bottom = _covered_part(view, image_hw, within_xyxy)
    if left == right or top == bottom:
        raise ValueError(f"The view {view.box_xyxy} covers no pixel of {within_xyxy or image_hw}.")

    def interpolated(columns: np.ndarray) -> np.ndarray:
        return _bicubic(columns, (y1 - y0, columns.shape[1]))[top - y0 : bottom - y0]

    columns = _bicubic(grid_map, (view.size_hw[0], x1 - x0))[:, left - x0 : right - x0]
    curves = _bezier_curves(columns, y1 - y0, (top - y0, bottom - y0))
    highest = int(curves.max(axis=(0, 1)).argmax())
    known = interpolated(columns[:, highest : highest + 1]).max()
    # float32: the weights of a pixel (at most 1.375 in all) are wrong by less than 1e-6, and so are their sums.
    rounding = 2e-5 * np.abs(columns).max() + np.finfo(np.float32).tiny
    candidates = _columns_reaching(known - rounding, curves)
    row, i = divmod(int(interpolated(columns[:, candidates]).argmax()), len(candidates))
    return left + int(candidates[i]), top + row


def _bezier_curves(columns: np.ndarray, height: int, rows: tuple[int, int]) -> np.ndarray:
    """Bézier coefficients [4, intervals, n] of the curves that bicubic interpolation of `columns` [h, n] to `height`
    pixels follows between the pixel rows `rows`, half-open: one cubic from each cell to the next.

    Keys' cubic convolution with a = -0.75, as torch has it: from cell value b to c, with their neighbours a and d, it
    is the cubic with the slopes 0.75 (c - a) and 0.75 (d - b) at its ends; its inner Bézier coefficients lie a third of
    a slope away from b and c.
    """
    cells = len(columns)

    def interval(row: float) -> int:  # -1 before the first cell's centre
        return min(max(math.floor((row + 0.5) * cells / height - 0.5), -1), cells - 1)

    margin = 1e-3 * height / cells  # torch finds the interval in float32
    first, end = interval(rows[0] - margin), interval(rows[1] - 1 + margin) + 1
    padded = np.pad(columns, ((2, 2), (0, 0)), mode="edge")
    a, b, c, d = (padded[first + k : end + k] for k in (1, 2, 3, 4))
    return np.stack([b, b + (c - a) / 4, c - (d - b) / 4, c])


def _columns_reaching(value: float, curves: np.ndarray, halvings: int = 3) -> np.ndarray:
    """The columns of which a curve may reach `value`, ascending.

    Of each half of a curve (de Casteljau) the coefficients lie closer to it.
    """
    may = (curves >= value).any(axis=0)
    _, column = np.nonzero(may)
    p, q, r, s = curves[:, may]
    for _ in range(halvings):
        pq, qr, rs = (p + q) / 2, (q + r) / 2, (r + s) / 2
        pqr, qrs = (pq + qr) / 2, (qr + rs) / 2
        middle = (pqr + qrs) / 2
        halves = np.hstack([[p, pq, pqr, middle], [middle, qrs, rs, s]])
        keep = (halves >= value).any(axis=0)
        column, (p, q, r, s) = np.tile(column, 2)[keep], halves[:, keep]
    return np.unique(column)


def peaks_xy(
    grid_map: np.ndarray, view: View, image_hw: tuple[int, int], count: int, *, apart: float = 2.0, share: float = 0.5
) -> list[tuple[int, int]]:
    """Up to `count` peaks of the map on the image, the largest pixel first.

    The others are the largest pixels of cells that no neighbouring cell exceeds, from high to low, at least `apart`
    cells from each peak before them (non-maximum suppression), and no lower than `share` of the way from the
    smallest to the largest cell on the image.
    """
    peaks = [largest_pixel_xy(grid_map, view, image_hw)]
    x0, y0, x1, y1 = view.box_xyxy
    rows, columns = view.size_hw
    cell_wh = np.array([(x1 - x0) / columns, (y1 - y0) / rows])
    on_image = np.where(cell_coverage(view, (0, 0, image_hw[1], image_hw[0])) > 0, grid_map, -np.inf)
    smallest, largest = on_image[np.isfinite(on_image)].min(), on_image.max()
    for row, column in _local_maxima(on_image):
        if len(peaks) >= count or on_image[row, column] < smallest + share * (largest - smallest):
            break
        left, top = np.floor((x0, y0) + cell_wh * (column, row)).astype(int).tolist()
        right, bottom = np.ceil((x0, y0) + cell_wh * (column + 1, row + 1)).astype(int).tolist()
        within = _covered_part(view, image_hw, (left, top, right, bottom))
        if within[0] < within[2] and within[1] < within[3]:
            peak = largest_pixel_xy(grid_map, view, image_hw, within)
            if (np.hypot(*((np.subtract(peak, peaks) / cell_wh).T)) >= apart).all():
                peaks.append(peak)
    return peaks[:count]


def _local_maxima(grid: np.ndarray) -> list[tuple[int, int]]:
    """The finite cells (row, column) that none of their eight neighbours exceeds, from high to low; of equal
    neighbours the first."""
    height, width = grid.shape
    padded = np.pad(grid, 1, constant_values=-np.inf)
    keep = np.isfinite(grid)
    for dy, dx in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]:
        neighbour = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        keep &= (grid > neighbour) if (dy, dx) < (0, 0) else (grid >= neighbour)
    cells = np.argwhere(keep)
    order = np.argsort(-grid[keep], kind="stable")
    return [(int(row), int(column)) for row, column in cells[order]]
