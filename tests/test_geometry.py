"""Grids on images: a planted cell must come back at its pixels."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aas.geometry import centre_crop_view, map_on_image, padded_view, peak_xy, stretched_view
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
    view = centre_crop_view((24, 24), image_hw, 336, 336)
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
