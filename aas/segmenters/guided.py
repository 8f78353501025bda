"""Masks with the photograph's edges: the guided filter of He, Sun and Tang (2010; fast: 2015, arXiv 1505.00996)."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aas.segmenters.sam_family import bilinear

FITTED_SIDE = 256  # pixels of the long side at which lines are fitted,
DRAWN_SIDE = 1024  # and, at most, at which they are drawn
RADIUS = 8  # pixels of the former
FLAT = 1e-4  # variance of colours in 0 ... 1: what varies less has no edges
CERTAIN = 2.0  # a logit about so far from 0 is certain: how much farther says nothing of where the edge is


@dataclass(frozen=True)
class Guide:
    """A photograph whose edges masks are to follow: `image` uint8 [H, W, 3], `DRAWN_SIDE` at its long side or less.

    In each window a mask is, as nearly as can be, a linear function of the colours: it changes where they do. These
    functions are fitted on a small photograph, averaged where windows overlap, and drawn with the large one's colours.
    """

    image: np.ndarray

    @classmethod
    def of(cls, photograph: np.ndarray) -> "Guide":
        """`photograph` uint8 [H, W, 3] of any size."""
        return cls(shrunk(photograph, DRAWN_SIDE))

    def redrawn(self, logits: Tensor) -> Tensor:
        """`logits` float32 [n, 1, h, w] of masks over the whole photograph -> [n, 1, H, W] of the guide, above 0 on
        the thing; their size says no more than -1 ... 1 how certain that is."""
        colours, mean, inverse = (x.to(logits.device) for x in self._statistics)
        mask = bilinear(logits, (colours.shape[1], colours.shape[2])).div(CERTAIN).tanh()
        mean_mask = window_means(mask)
        covariance = window_means(colours * mask) - mean * mean_mask  # with each colour, [n, 3, h, w]
        slope = torch.einsum("cdhw,ndhw->nchw", inverse, covariance)
        offset = mean_mask - (slope * mean).sum(1, keepdim=True)
        large = in_unit(self.image).to(logits.device)
        lines = bilinear(window_means(torch.cat([slope, offset], 1)), self.image.shape[:2])
        return (lines[:, :3] * large).sum(1, keepdim=True) + lines[:, 3:]

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """The small photograph's colours [3, h, w], and of those in the window around each pixel the mean [3, h, w] and
        the inverse of the covariance [3, 3, h, w]."""
        colours = in_unit(shrunk(self.image, FITTED_SIDE))
        mean = window_means(colours[None])[0]
        products = window_means((colours[:, None] * colours).flatten(0, 1)[None])[0].unflatten(0, (3, 3))
        covariance = (products - mean[:, None] * mean).permute(2, 3, 0, 1) + FLAT * torch.eye(3)
        return colours, mean, torch.linalg.inv(covariance).permute(2, 3, 0, 1)


def window_means(x: Tensor) -> Tensor:
    """Means of `x` [n, C, h, w] over squares of 2 `RADIUS` + 1 pixels, of what of them lies inside."""
    side = 2 * RADIUS + 1
    columns = F.avg_pool2d(x, (side, 1), 1, (RADIUS, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, side), 1, (0, RADIUS), count_include_pad=False)


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """`image` uint8 [H, W, 3] with `side` pixels at its long side; the same where it has no more."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return image
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)


def in_unit(image: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in 0 ... 1."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 255
