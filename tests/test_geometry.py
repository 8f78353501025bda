"""Grids on images: a planted cell must come back at its pixels."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from aas.geometry import (
    centre_crop_view,
    largest_pixel_xy,
    map_on_image,
    padded_view,
    peak_xy,
    peaks_xy,
    stretched_view,
)
from aas.geometry.maps import bicubic
from aas.geometry.peaks import _bicubic_weights, _column_bounds
from aas.records import View


def planted(row: int, column: int, grid_hw=(12, 12)) -> np.ndarray:
    grid = np.zeros(grid_hw, np.float32)
    grid[row, column] = 1
    return grid


@pytest.mark.parametrize("image_hw", [(480, 640), (640, 480), (300, 300), (97, 1201)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 7), (11, 11)])
def test_stretched(image_hw, cell):
    x, y = peak_xy(map_on_image(planted(*cell), stretched_view((12, 12), image_hw), image_hw))
    assert abs((y + 0.5) / image_hw[0] * 12 - (cell[0] + 0.5)) <= 0.55
    assert abs((x + 0.5) / image_hw[1] * 12 - (cell[1] + 0.5)) <= 0.55


@pytest.mark.parametrize("image_hw", [(480, 640), (641, 480), (300, 300)])
def test_padded_is_bicubic_to_the_square_then_cropped(image_hw):
    """Section `Map to point` of the reference, computed independently."""
    grid = np.random.default_rng(0).random((12, 12), np.float32)
    height, width = image_hw
    side = max(image_hw)
    square = F.interpolate(torch.from_numpy(grid)[None, None], size=(side, side), mode="bicubic")[0, 0].numpy()
    top, left = (side - height) // 2, (side - width) // 2
    expected = square[top : top + height, left : left + width]
    ours = map_on_image(grid, padded_view((12, 12), image_hw), image_hw)
    np.testing.assert_array_equal(ours, expected)
    i = int(expected.flatten().argmax())
    assert peak_xy(ours) == (i % width, i // width)


def test_centre_crop_does_not_cover_the_sides():
    image_hw = (480, 640)
    view = centre_crop_view((24, 24), image_hw, (336, 448), (336, 336))
    assert view.box_xyxy == pytest.approx((80, 0, 560, 480), abs=1)
    image_map = map_on_image(planted(0, 0, (24, 24)), view, image_hw)
    x, y = peak_xy(image_map)
    assert 80 <= x < 101 and y < 21
    assert (image_map[:, :79] == image_map.min()).all() and (image_map[:, 561:] == image_map.min()).all()


def test_ties_take_the_first_pixel():
    image_map = np.zeros((4, 5), np.float32)
    image_map[1, 3] = image_map[2, 0] = 1
    assert peak_xy(image_map) == (3, 1)


def test_view_smaller_than_the_image_keeps_its_place():
    image_map = map_on_image(np.ones((2, 2), np.float32) * 5, View((2, 2), (10, 20, 30, 40)), (50, 60))
    assert image_map.shape == (50, 60)
    np.testing.assert_allclose(image_map[20:40, 10:30], 5, rtol=1e-5)


KINDS = {
    "noise": lambda rng, hw: rng.standard_normal(hw) * 1e-4,
    "smooth": lambda rng, hw: np.cumsum(np.cumsum(rng.standard_normal(hw), 0), 1),
    "constant": lambda rng, hw: np.full(
        hw, rng.random()
    ),  # torch's weights do not sum to 1 exactly: the peak is its rounding
    "zero": lambda rng, hw: np.zeros(hw),
    "two values": lambda rng, hw: rng.integers(0, 2, hw),  # many exact ties
    "checkerboard": lambda rng, hw: np.indices(hw).sum(0) % 2,
    "ridge": lambda rng, hw: np.broadcast_to(np.arange(hw[1]) == hw[1] // 2, hw),
    "plateau": lambda rng, hw: np.minimum(rng.random(hw), 0.5),
    "mirrored": lambda rng, hw: (m := rng.random(hw)) + m[::-1, ::-1],
    "one cell": lambda rng, hw: np.arange(hw[0] * hw[1]).reshape(hw) == rng.integers(hw[0] * hw[1]),
    "far from zero": lambda rng, hw: 1000 + rng.random(hw) * 1e-3,
    "all below zero": lambda rng, hw: -1 - rng.random(hw),
    "tiny": lambda rng, hw: rng.random(hw) * 1e-42,  # subnormal numbers
    "huge": lambda rng, hw: rng.standard_normal(hw) * 1e30,
    "ramp": lambda rng, hw: np.add.outer(np.arange(hw[0]), np.arange(hw[1])) * rng.standard_normal(),
    "sink": lambda rng, hw: rng.random(hw) * 1e-4 + 100 * (np.arange(hw[0] * hw[1]).reshape(hw) == 0),
}
VIEWS = {
    "stretched": lambda rng, grid_hw, image_hw: stretched_view(grid_hw, image_hw),
    "padded": lambda rng, grid_hw, image_hw: padded_view(grid_hw, image_hw),
    "any": lambda rng, grid_hw, image_hw: any_view(rng, grid_hw, image_hw),
}


def any_view(rng, grid_hw, image_hw) -> View:
    """Sticks out of the image, covers a part of it, or misses it; its edges lie between pixels."""
    (y0, x0), (y1, x1) = np.array(image_hw) * rng.uniform(-0.5, 1.2, (2, 2))
    return View(grid_hw, (min(x0, x1), min(y0, y1), max(x0, x1) + 1, max(y0, y1) + 1))


def by_full_upsampling(grid_map, view, image_hw, within=None) -> tuple[int, int] | None:
    """Every pixel that the view covers, in the way of the reference."""
    height, width = image_hw
    x0, y0, x1, y1 = (round(v) for v in view.box_xyxy)
    grid = torch.from_numpy(grid_map)[None, None]
    covered = F.interpolate(grid, size=(y1 - y0, x1 - x0), mode="bicubic", align_corners=False)[0, 0].numpy()
    left, top, right, bottom = within or (0, 0, width, height)
    left, top, right, bottom = max(left, 0, x0), max(top, 0, y0), min(right, width, x1), min(bottom, height, y1)
    if left >= right or top >= bottom:
        return None
    x, y = peak_xy(covered[top - y0 : bottom - y0, left - x0 : right - x0])
    return left + x, top + y


@pytest.mark.parametrize("view_kind", VIEWS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grid_hw=st.tuples(st.integers(1, 40), st.integers(1, 40)) | st.tuples(st.just(1), st.integers(1, 64)),
    image_hw=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    part=st.booleans(),
)
def test_the_largest_pixel_is_that_of_full_upsampling(kind, view_kind, seed, grid_hw, image_hw, part):
    """Bit for bit the same pixel, ties included."""
    rng = np.random.default_rng(seed)
    grid_map = np.ascontiguousarray(KINDS[kind](rng, grid_hw), np.float32)
    view = VIEWS[view_kind](rng, grid_hw, image_hw)
    corners = rng.uniform(-0.1, 1.1, (2, 2)) * (image_hw[1], image_hw[0])
    within = (*(int(v) for v in corners.min(0)), *(int(v) + 1 for v in corners.max(0))) if part else None
    expected = by_full_upsampling(grid_map, view, image_hw, within)
    if expected is None:
        with pytest.raises(ValueError, match="covers no pixel"):
            largest_pixel_xy(grid_map, view, image_hw, within)
    else:
        assert largest_pixel_xy(grid_map, view, image_hw, within) == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_largest_pixel_is_that_of_the_picture_of_the_map(seed):
    rng = np.random.default_rng(seed)
    grid_map, image_hw = rng.random((9, 13), np.float32), (120, 95)
    view = any_view(rng, (9, 13), image_hw)
    assume(by_full_upsampling(grid_map, view, image_hw))
    assert largest_pixel_xy(grid_map, view, image_hw) == peak_xy(map_on_image(grid_map, view, image_hw))


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_pixel_of_a_large_photograph(kind):
    """Cells of a hundred pixels: close to the peak neighbouring pixels differ by their rounding alone."""
    rng = np.random.default_rng(0)
    grid_map, image_hw = KINDS[kind](rng, (12, 16)).astype(np.float32), (1200, 1600)
    view = stretched_view((12, 16), image_hw)
    assert largest_pixel_xy(grid_map, view, image_hw) == by_full_upsampling(grid_map, view, image_hw)


def computed_pixels(monkeypatch, grid_map, view, image_hw) -> int:
    """How many pixels torch interpolates on the way to the largest."""
    computed, interpolate = [], F.interpolate

    def counted(*args, **kwargs):
        computed.append(np.prod(kwargs["size"]))
        return interpolate(*args, **kwargs)

    monkeypatch.setattr(F, "interpolate", counted)
    largest_pixel_xy(grid_map, view, image_hw)
    return sum(computed)


def test_few_pixels_are_computed(monkeypatch):
    """A photograph of 12 megapixels: of its padded square 24 rows, 24 columns of weights, and a few whole columns."""
    grid_map = np.random.default_rng(0).random((24, 24), np.float32)
    pixels = computed_pixels(monkeypatch, grid_map, padded_view((24, 24), (3000, 4000)), (3000, 4000))
    assert pixels < (24 + 24 + 20) * 4000


def test_the_bound_leaves_few_columns():
    """Of a map with one bump fewer than a tenth of the columns may hold its top; a sink outside of the rows that count
    does not hide it."""
    grid_map = blobs((3, 3, 1.0))
    grid_map[11, 11] = 9
    columns, weights = bicubic(grid_map, (12, 1200)), _bicubic_weights(12, 600)[:300]
    bounds, values = _column_bounds(columns, weights), weights @ columns
    assert (bounds >= values.max(axis=0) - 1e-6).all()
    assert (bounds >= values.max()).sum() < 1200 / 10


def test_a_map_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite"):
        largest_pixel_xy(np.array([[1, np.nan]], np.float32), stretched_view((1, 2), (10, 10)), (10, 10))


def blobs(*cells: tuple[int, int, float]) -> np.ndarray:
    """Bumps of about a cell and a half on a grid of 12 x 12, each (row, column, height)."""
    rows, columns = np.indices((12, 12))
    bumps = [h * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / 4.5) for r, c, h in cells]
    return np.sum(bumps, axis=0).astype(np.float32)


def test_peaks_from_high_to_low_and_apart():
    grid_map, image_hw = blobs((2, 2, 1.0), (9, 3, 0.8), (6, 10, 0.9), (11, 11, 0.2)), (240, 360)
    view = stretched_view((12, 12), image_hw)
    peaks = peaks_xy(grid_map, view, image_hw, 5)
    cells = [(round(y / 20 - 0.5), round(x / 30 - 0.5)) for x, y in peaks]
    assert cells == [(2, 2), (6, 10), (9, 3)], "the fourth bump is too low"
    assert peaks[0] == largest_pixel_xy(grid_map, view, image_hw)
    assert peaks_xy(grid_map, view, image_hw, 2) == peaks[:2]
    assert len(peaks_xy(grid_map, view, image_hw, 5, share=0.1)) == 4
    assert len(peaks_xy(grid_map, view, image_hw, 5, apart=8)) == 2, "the third is nearer than 8 cells to the first"


def test_peaks_of_padding_do_not_count():
    image_hw = (100, 200)  # rows 3 to 8 of the 12 lie on the image
    view = padded_view((12, 12), image_hw)
    peaks = peaks_xy(blobs((0, 6, 5.0), (5, 2, 1.0), (7, 9, 0.9)), view, image_hw, 9, share=0.1)
    assert all(0 <= x < 200 and 0 <= y < 100 for x, y in peaks)
    assert {(int(y + 50) * 12 // 200, int(x) * 12 // 200) for x, y in peaks} >= {(5, 2), (7, 9)}


@pytest.mark.parametrize("image_hw", [(5, 7), (1, 1), (300, 20)])
def test_peaks_of_a_constant_map_and_of_small_images(image_hw):
    for grid_map in (np.zeros((12, 12), np.float32), blobs((2, 2, 1.0), (9, 9, 1.0))):
        peaks = peaks_xy(grid_map, stretched_view((12, 12), image_hw), image_hw, 4)
        assert 1 <= len(peaks) == len(set(peaks))
        assert all(0 <= x < image_hw[1] and 0 <= y < image_hw[0] for x, y in peaks)
