"""Masks along a photograph's edges: the guided filter against its least squares written out, and on drawn things."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aas.segmenters import guided
from aas.segmenters.guided import Guide

HW = (23, 31)


def fitted_by_hand(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The filter as He et al. define it: in each window a ridge regression of the mask on the colours, and each pixel
    by the mean of the coefficients of the windows that hold it. `image` [H, W, 3], `mask` [H, W]."""
    height, width = mask.shape

    def window(y: int, x: int) -> tuple[slice, slice]:
        r = guided.RADIUS
        return slice(max(0, y - r), y + r + 1), slice(max(0, x - r), x + r + 1)

    lines = np.zeros((height, width, 4))
    for y, x in np.ndindex(height, width):
        colours, values = image[window(y, x)].reshape(-1, 3), mask[window(y, x)].ravel()
        centred = colours - colours.mean(0)
        # the ridge is of the slope alone: rows of sqrt(n FLAT) times the identity, the offset free
        ridge = np.sqrt(len(colours) * guided.FLAT) * np.eye(3)
        target = np.concatenate([values - values.mean(), np.zeros(3)])
        slope = np.linalg.lstsq(np.concatenate([centred, ridge]), target, rcond=None)[0]
        lines[y, x] = *slope, values.mean() - slope @ colours.mean(0)
    drawn = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        mean = lines[window(y, x)].reshape(-1, 4).mean(0)
        drawn[y, x] = mean[:3] @ image[y, x] + mean[3]
    return drawn


def test_it_is_the_least_squares_of_each_window():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*HW, 3), np.uint8)
    logits = torch.from_numpy(rng.normal(size=(2, 1, *HW))).float() * 3
    drawn = Guide.of(image).redrawn(logits)
    assert drawn.shape == (2, 1, *HW)
    for one, of_one in zip(drawn, logits, strict=True):
        expected = fitted_by_hand(image / 255.0, np.tanh(of_one[0].double().numpy() / guided.CERTAIN))
        np.testing.assert_allclose(one[0], expected, atol=2e-4)


def test_a_mask_of_large_cells_gets_the_edge_of_its_thing():
    y, x = np.mgrid[:240, :320]
    disc = (y - 110) ** 2 + (x - 150) ** 2 < 70**2
    image = np.where(disc[..., None], np.uint8([200, 60, 40]), np.uint8([40, 90, 160])).astype(np.uint8)
    image = (image + np.random.default_rng(0).integers(0, 20, image.shape)).astype(np.uint8)
    beside = torch.from_numpy(np.roll(disc, 5, axis=1)).float()
    coarse = F.avg_pool2d(beside[None, None] * 8 - 4, 8)

    def iou(logits: torch.Tensor) -> float:
        mask = (logits[0, 0] > 0).numpy()
        return (mask & disc).sum() / (mask | disc).sum()

    before = iou(F.interpolate(coarse, disc.shape, mode="bilinear"))
    assert before < 0.92 and iou(Guide.of(image).redrawn(coarse)) > 0.98


@pytest.mark.parametrize("size_hw", [(1, 1), (3, 2000), (1500, 2)])
def test_thin_photographs_and_no_masks(size_hw):
    guide = Guide.of(np.zeros((*size_hw, 3), np.uint8))
    assert max(guide.image.shape) <= max(3, guided.DRAWN_SIDE)
    logits = torch.randn(2, 1, 8, 8)
    assert guide.redrawn(logits).isfinite().all() and guide.redrawn(logits).shape == (2, 1, *guide.image.shape[:2])
    assert guide.redrawn(logits[:0]).shape[0] == 0
    assert (guide.redrawn(torch.full((1, 1, 4, 4), -9.0)) < 0).all()
    assert (guide.redrawn(torch.full((1, 1, 4, 4), 9.0)) > 0).all()
