"""Several sources put together."""

from functools import reduce
from math import ceil
from operator import or_

import torch
from torch import Tensor
from torch.nn import functional as F

from aas.captured import Captured, Needs
from aas.maps import source_named
from aas.maps.calibration import Calibration
from aas.maps.mean import without_token_mean
from aas.maps.source import Source, by_grid

DEFAULT_PARTS = "mean+tam+attribution:signed"
SMOOTHED_BY = 0.8  # cells


class Fused(Source):
    """The mean of several sources' maps, each brought to one scale: `fused:mean+tam`; by ranks, `fused:rank:mean+tam`.

    M[t] = G * 1 / K sum_k z(M_k[t]), z standardised over the map's cells (or the cells' ranks, 0 ... 1), G a Gaussian
    of 0.8 cell. Attention, state and value err independently: without names these three are fused,
    mean+tam+attribution:signed. From sources that want it the mean over the answer's tokens is taken away before.
    """

    def __init__(self, argument: str = ""):
        self.by_rank = argument.startswith("rank:")
        names = argument.removeprefix("rank:") or DEFAULT_PARTS
        self.parts = [source_named(name) for name in names.split("+")]

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return reduce(or_, (part.needs(n_layers, n_heads) for part in self.parts))

    def calibrations(self) -> list[Calibration]:
        return [one for part in self.parts for one in part.calibrations()]

    def __call__(self, captured: Captured) -> Tensor:
        scaled = _ranks if self.by_rank else _standardised
        fused = torch.stack([scaled(own_maps(part, captured)) for part in self.parts]).mean(0)
        return by_grid(fused, captured.grids_hw, smoothed)


def own_maps(part: Source, captured: Captured) -> Tensor:
    """A source's maps as they point: without their answer's mean where it wants that."""
    maps = part(captured)
    return torch.from_numpy(without_token_mean(maps.numpy(), captured.counted)) if part.minus_token_mean else maps


def _standardised(maps: Tensor) -> Tensor:
    return (maps - maps.mean(1, keepdim=True)) / maps.std(1, keepdim=True, correction=0).clamp(min=1e-30)


def _ranks(maps: Tensor) -> Tensor:
    return maps.argsort(dim=1, stable=True).argsort(dim=1).float() / max(1, maps.shape[1] - 1)


def smoothed(maps: Tensor, size_hw: tuple[int, int], sigma: float = SMOOTHED_BY) -> Tensor:
    """[T, h * w] under a Gaussian of `sigma` cells, cut at four of them; what lies beyond the edge counts as it."""
    reach = ceil(4 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = F.pad(maps.reshape(-1, 1, *size_hw), (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel[None, None, None]), kernel[None, None, :, None]).reshape(maps.shape)
