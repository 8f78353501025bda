"""Photographs and masks at the size at which they are shown."""

import cv2
import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]

# Above this factor a photograph has so few pixels that people want to see them as squares.
PIXELATED_FROM = 6
# The same where a browser does the enlarging.
PIXELATED_BELOW_PX = 160


def shown_size_hw(image_hw: tuple[int, int], shortest_side_px: int, longest_side_px: int) -> tuple[int, int]:
    """The size whose long side lies within the two limits, aspect ratio kept, at least one pixel."""
    long_side = max(image_hw)
    scale = min(max(long_side, shortest_side_px), longest_side_px) / long_side
    height, width = (max(1, round(side * scale)) for side in image_hw)
    return height, width


def shown_image(image: np.ndarray, size_hw: tuple[int, int]) -> Image.Image:
    """uint8 [H, W, 3] -> RGB picture of `size_hw`, smooth unless it has so few pixels that they show as squares."""
    height, width = size_hw
    picture = Image.fromarray(image)
    if height < image.shape[0]:
        # The area average is much faster, and as good where many pixels become one.
        much = height * 3 < image.shape[0]
        return picture.resize((width, height), Image.Resampling.BOX if much else Image.Resampling.LANCZOS)
    tiny = height >= PIXELATED_FROM * image.shape[0]
    return picture.resize((width, height), Image.Resampling.NEAREST if tiny else Image.Resampling.BICUBIC)


def shown_mask(mask: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """bool [H, W] -> float32 [h, w] in [0, 1]: the share of each shown pixel that lies in the mask."""
    if mask.shape == size_hw:
        return mask.astype(np.float32)
    height, width = size_hw
    shrinks = height < mask.shape[0]
    tiny = height >= PIXELATED_FROM * mask.shape[0]
    method = Image.Resampling.BOX if shrinks or tiny else Image.Resampling.BILINEAR
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((width, height), method), np.float32) / 255


def shown_point(point_xy: tuple[int, int], image_hw: tuple[int, int], size_hw: tuple[int, int]) -> tuple[float, float]:
    """The centre of pixel `point_xy` of the original, in the shown picture's coordinates, kept inside it."""
    x, y = point_xy
    (height, width), (shown_height, shown_width) = image_hw, size_hw
    scaled_xy = (x + 0.5) * shown_width / width, (y + 0.5) * shown_height / height
    return min(max(scaled_xy[0], 0.0), float(shown_width)), min(max(scaled_xy[1], 0.0), float(shown_height))


def extent(cover: np.ndarray, margin_px: int) -> Box | None:
    """The box x0, y0, x1, y1 of the nonzero pixels of [h, w] and `margin_px` more within the picture; None if none."""
    rows, columns = np.flatnonzero(cover.any(axis=1)), np.flatnonzero(cover.any(axis=0))
    if not len(rows):
        return None
    x0, y0 = max(0, int(columns[0]) - margin_px), max(0, int(rows[0]) - margin_px)
    x1, y1 = int(columns[-1]) + 1 + margin_px, int(rows[-1]) + 1 + margin_px
    return x0, y0, min(x1, cover.shape[1]), min(y1, cover.shape[0])


def grown(cover: np.ndarray, radius_px: int) -> np.ndarray:
    """[h, w] -> the largest value within a disc of `radius_px` around each pixel."""
    offsets = np.arange(-radius_px, radius_px + 1)
    # The half pixel makes small discs round: without it one pixel sticks out at each of the four ends.
    disc = np.hypot(*np.meshgrid(offsets, offsets)) <= radius_px + (0.5 if radius_px > 1 else 0)
    return cv2.dilate(cover, disc.astype(np.uint8))


def inner_edge(cover: np.ndarray, width_px: int) -> np.ndarray:
    """[h, w] in [0, 1] -> how much of each pixel lies in the mask but within `width_px` of its outside."""
    return cover - (1 - grown(1 - cover, width_px))
