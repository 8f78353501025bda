"""Smooth small shapes on pictures, and free places for labels."""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from aas.view.colours import BLACK, RGB, WHITE

Box = tuple[float, float, float, float]

# Pillow draws without anti-aliasing, OpenCV without opacity and rounded corners: shapes are drawn this much larger and
# shrunk.
_OVERSAMPLING = 4


def around(point_xy: tuple[float, float], radius_px: float) -> Box:
    """The square box around a point."""
    x, y = point_xy
    return x - radius_px, y - radius_px, x + radius_px, y + radius_px


def paste_marker(picture: Image.Image, point_xy: tuple[float, float], radius_px: float, colour: RGB) -> None:
    """A disc of `colour` in a white ring with a thin dark rim: one of the three shows on any background."""
    for share, fill, opacity in ((1.18, BLACK, 90), (1.0, WHITE, 255), (0.68, colour, 255)):
        radius = radius_px * share
        _paste_shape(picture, around(point_xy, radius), radius, (*fill, opacity))


def paste_further_marker(
    picture: Image.Image, point_xy: tuple[float, float], radius_px: float, colour: RGB, on_thing: bool
) -> None:
    """A point beside the first one: a smaller disc, or where it is not on the thing a cross on white."""
    if on_thing:
        return paste_marker(picture, point_xy, radius_px, colour)
    radius_px *= 1.25
    for share, fill, opacity in ((1.2, BLACK, 90), (1.08, colour, 255), (0.86, WHITE, 255)):
        _paste_shape(picture, around(point_xy, radius_px * share), radius_px * share, (*fill, opacity))
    _paste_cross(picture, point_xy, radius_px * 0.5, colour)


def _paste_cross(picture: Image.Image, point_xy: tuple[float, float], arm_px: float, colour: RGB) -> None:
    left, top, side = math.floor(point_xy[0] - arm_px), math.floor(point_xy[1] - arm_px), math.ceil(2 * arm_px) + 2
    cover = Image.new("L", (side * _OVERSAMPLING, side * _OVERSAMPLING))
    x0, y0, x1, y1 = (
        (v - origin) * _OVERSAMPLING for v, origin in zip(around(point_xy, arm_px), (left, top) * 2, strict=True)
    )
    for line in ((x0, y0, x1, y1), (x0, y1, x1, y0)):
        ImageDraw.Draw(cover).line(line, fill=255, width=round(arm_px * 0.55 * _OVERSAMPLING))
    picture.paste(colour, (left, top), cover.resize((side, side), Image.Resampling.BOX))


def paste_rounded(picture: Image.Image, box: Box, radius_px: float, fill: RGB, outline: RGB | None = None) -> None:
    """A filled rounded rectangle, with a line of one pixel around it when `outline` is given."""
    x0, y0, x1, y1 = box
    if outline is not None:
        _paste_shape(picture, (x0 - 1, y0 - 1, x1 + 1, y1 + 1), radius_px + 1, (*outline, 230))
    _paste_shape(picture, box, radius_px, (*fill, 255))


def _paste_shape(picture: Image.Image, box: Box, radius_px: float, fill: tuple[int, int, int, int]) -> None:
    left, top = math.floor(box[0]), math.floor(box[1])
    size_wh = math.ceil(box[2]) - left, math.ceil(box[3]) - top
    cover = Image.new("L", (size_wh[0] * _OVERSAMPLING, size_wh[1] * _OVERSAMPLING))
    corners = [(v - origin) * _OVERSAMPLING for v, origin in zip(box, (left, top, left, top), strict=True)]
    # Pillow's rectangles include their last pixel.
    corners[2:] = [v - 1 for v in corners[2:]]
    ImageDraw.Draw(cover).rounded_rectangle(corners, radius_px * _OVERSAMPLING, fill=fill[3])
    picture.paste(fill[:3], (left, top), cover.resize(size_wh, Image.Resampling.BOX))


def best_place(
    point_xy: tuple[float, float],
    size_wh: tuple[float, float],
    picture_wh: tuple[int, int],
    obstacles: Sequence[Box],
    gaps_px: Sequence[float],
) -> tuple[Box, float]:
    """The nearest box of `size_wh` around the point that overlaps no obstacle, and the overlap in square pixels.

    `gaps_px`: the distances between point and box to try, the nearest first. Boxes lie inside the picture. When every
    candidate overlaps, the one with the least overlap is returned.
    """
    best: tuple[Box, float] | None = None
    for centre_xy in _centres(point_xy, size_wh, gaps_px):
        box = _inside(centre_xy, size_wh, picture_wh)
        # A box that the picture's edge pushed back can lie on its own marker.
        overlap = sum(_overlap(box, obstacle) for obstacle in (*obstacles, around(point_xy, gaps_px[0] * 0.67)))
        if best is None or overlap < best[1]:
            best = box, overlap
        if overlap == 0:
            break
    assert best is not None
    return best


def _centres(
    point_xy: tuple[float, float], size_wh: tuple[float, float], gaps_px: Sequence[float]
) -> list[tuple[float, float]]:
    """Above, below, right, left, the corners; then the same further away."""
    x, y = point_xy
    centres = []
    for gap_px in gaps_px:
        dx, dy = size_wh[0] / 2 + gap_px, size_wh[1] / 2 + gap_px
        centres += [(x, y - dy), (x, y + dy), (x + dx, y), (x - dx, y)]
        centres += [(x + dx, y - dy), (x - dx, y - dy), (x + dx, y + dy), (x - dx, y + dy)]
    return centres


def _inside(centre_xy: tuple[float, float], size_wh: tuple[float, float], picture_wh: tuple[int, int]) -> Box:
    left, top = (
        max(1.0, min(centre - size / 2, side - size - 2))
        for centre, size, side in zip(centre_xy, size_wh, picture_wh, strict=True)
    )
    return round(left), round(top), round(left + size_wh[0]), round(top + size_wh[1])


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
