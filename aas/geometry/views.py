"""Where the tokens of a model's input lie on the image: how each processor fits the image into its input."""

import math
from dataclasses import replace

from torch import Tensor

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


def centre_crop_view(
    grid_hw: tuple[int, int], image_hw: tuple[int, int], resized_hw: tuple[int, int], crop_hw: tuple[int, int]
) -> View:
    """The image was resized to `resized_hw`, then its centre of `crop_hw` pixels was cut out, padded if need be.

    As CLIP's processor does it, with its integer rounding of the crop's offset.
    """
    height, width = image_hw
    top, left = (resized_hw[0] - crop_hw[0]) // 2, (resized_hw[1] - crop_hw[1]) // 2
    scale_x, scale_y = width / resized_hw[1], height / resized_hw[0]
    return View(grid_hw, (left * scale_x, top * scale_y, (left + crop_hw[1]) * scale_x, (top + crop_hw[0]) * scale_y))


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


def scaled_view(view: View, scale_xy: tuple[float, float]) -> View:
    """The view in the pixels of a resized image."""
    x0, y0, x1, y1 = view.box_xyxy
    return View(view.size_hw, (x0 * scale_xy[0], y0 * scale_xy[1], x1 * scale_xy[0], y1 * scale_xy[1]), view.name)
