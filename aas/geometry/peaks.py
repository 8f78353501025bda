"""The pixels where a map is largest."""

import functools

import cv2
import numpy as np

from aas.geometry.maps import PixelBox, bicubic, cell_coverage, covered_part, map_on_image, whole_pixels
from aas.records import View


def deepest_xy(mask: np.ndarray) -> tuple[int, int]:
    """The pixel of a bool mask [H, W] that is furthest from its outside (and from the image's border)."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    return peak_xy(depth)


def peak_xy(image_map: np.ndarray) -> tuple[int, int]:
    """The pixel of the largest value of [H, W], the first one in row-major order on ties."""
    y, x = divmod(int(image_map.argmax()), image_map.shape[1])
    return x, y


def largest_pixel_xy(
    grid_map: np.ndarray, view: View, image_hw: tuple[int, int], within_xyxy: PixelBox | None = None
) -> tuple[int, int]:
    """The pixel where `map_on_image` is largest, the first one in row-major order on ties, by computing few of them.

    `grid_map` float32 [h, w] over the cells of `view`. Only pixels that the view covers count, and of these, where
    `within_xyxy` is given, only those of that rectangle.

    Bicubic interpolation goes along the rows, then along the columns, and where a side keeps its size its weights are
    exactly 0 and 1. So it is done here in the same two steps, bit by bit the same, the second one only for the columns
    that may hold the largest pixel: a bound for each column leaves some, a product of matrices, which rounds in another
    way, leaves those that only rounding tells apart.

    Raises ValueError when the view does not reach the rectangle, or the map is not finite.
    """
    if not np.isfinite(grid_map).all():
        raise ValueError("The attention map holds NaN or infinite values: the model overflowed. Try another dtype.")
    x0, y0, x1, y1 = whole_pixels(view)
    left, top, right, bottom = covered_part(view, image_hw, within_xyxy)
    if left == right or top == bottom:
        raise ValueError(f"The view {view.box_xyxy} covers no pixel of {within_xyxy or image_hw}.")
    columns = bicubic(grid_map, (view.size_hw[0], x1 - x0))[:, left - x0 : right - x0]
    weights = _bicubic_weights(view.size_hw[0], y1 - y0)[top - y0 : bottom - y0]
    near = _columns_of_the_largest(columns, weights)
    pixels = bicubic(columns[:, near], (y1 - y0, len(near)))[top - y0 : bottom - y0]
    column, row = peak_xy(pixels)
    return left + int(near[column]), top + row


@functools.lru_cache(maxsize=8)  # all phrases of an answer share them
def _bicubic_weights(cells: int, pixels: int) -> np.ndarray:
    """The weight of each cell for each pixel along one side, float32 [pixels, cells]."""
    return bicubic(np.eye(cells), (pixels, cells))


def _columns_of_the_largest(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The columns, ascending, that hold the largest value of `weights` [H, h] times `columns` [h, W], or one that
    rounding may make the largest."""
    # float32: the weights of a pixel (at most 1.375 in all) are wrong by less than 1e-6, and so are their sums.
    rounding = 2e-5 * np.abs(columns).max() + np.finfo(np.float32).tiny
    bounds = _column_bounds(columns, weights)
    known = (weights @ columns[:, bounds.argmax()]).max()
    near = np.flatnonzero(bounds >= known - rounding)
    highest = (weights @ columns[:, near]).max(axis=0)
    return near[highest >= highest.max() - rounding]


def _column_bounds(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What no pixel of a column exceeds, [W].

    Between two cells a column is a cubic (Keys' convolution with a = -0.75, as torch has it), which stays below the
    largest of its Bézier coefficients: the two cells' values, and these a quarter of the difference of their neighbours
    up or down. Only the cells that a pixel lies between have a positive weight.
    """
    padded = np.pad(columns, ((1, 1), (0, 0)), mode="edge")
    coefficients = columns + np.abs(padded[2:] - padded[:-2]) / 4
    return coefficients[weights.max(axis=0) > 0].max(axis=0)


def centroid_xy(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    """The pixel at the centre of mass of what a map float32 [h, w] has above its mean, over the image's pixels that the
    view covers; of a constant map its `largest_pixel_xy`, and ValueError as there."""
    (x, y), above = largest_pixel_xy(grid_map, view, image_hw), _above_mean(grid_map, view, image_hw)
    if not above.any():
        return x, y
    left, top, _, _ = covered_part(view, image_hw)
    columns, rows = above.sum(0), above.sum(1)
    x, y = (int((side * (np.arange(len(side)) + 0.5)).sum() / side.sum()) for side in (columns, rows))
    return left + x, top + y


def region_xy(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    """The pixel furthest inside the largest connected region that a map float32 [h, w] has above its mean, so that it
    always lies in it; of a constant map its `largest_pixel_xy`, and ValueError as there."""
    xy, above = largest_pixel_xy(grid_map, view, image_hw), _above_mean(grid_map, view, image_hw) > 0
    if not above.any():
        return xy
    _, labels, sizes, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    x, y = deepest_xy(labels == 1 + sizes[1:, cv2.CC_STAT_AREA].argmax())
    left, top, _, _ = covered_part(view, image_hw)
    return left + x, top + y


def _above_mean(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """What the pixels that the view covers have above their mean, 0 below it; float64 [rows, columns]."""
    left, top, right, bottom = covered_part(view, image_hw)
    pixels = map_on_image(grid_map, view, image_hw)[top:bottom, left:right].astype(np.float64)
    mean = pixels.mean()
    return np.where(pixels > mean + 1e-6 * abs(mean), pixels - mean, 0.0)  # of a constant map rounding is left


def peaks_xy(
    grid_map: np.ndarray, view: View, image_hw: tuple[int, int], count: int, *, apart: float = 2.0, share: float = 0.5
) -> list[tuple[int, int]]:
    """Up to `count` peaks (x, y) of a map float32 [h, w] on the image, the largest pixel first.

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
        within = covered_part(view, image_hw, (left, top, right, bottom))
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
