"""What every map source offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.calibration import Calibration


class Source(ABC):
    """A way from what was captured to one map per token. Made of what stands behind `NAME:`, ValueError if it does not
    understand that.

    `minus_token_mean`: whether the mean over the answer's tokens is taken away from its maps before they point, as the
    method does with attention.
    """

    minus_token_mean: ClassVar[bool] = False

    def __init__(self, argument: str = ""):
        if argument:
            raise ValueError(f"--maps {type(self).__name__.lower()}:{argument}: this source takes no argument.")

    @abstractmethod
    def needs(self, n_layers: int, n_heads: int) -> Needs:
        """What must be captured of a model of so many layers and heads; ValueError for some that it does not have."""

    def calibrations(self) -> list[Calibration]:
        """The files that it has its heads from."""
        return []

    @abstractmethod
    def __call__(self, captured: Captured) -> Tensor:
        """Maps float32 [T, N] on the CPU, over the image's tokens."""


def by_grid(
    maps: Tensor, grids_hw: Sequence[tuple[int, int]], of_grid: Callable[[Tensor, tuple[int, int]], Tensor]
) -> Tensor:
    """`maps` [T, N], grid after grid, as `of_grid` makes them of each grid's [T, h * w] and (h, w)."""
    parts = maps.split([height * width for height, width in grids_hw], dim=1)
    return torch.cat([of_grid(*both) for both in zip(parts, grids_hw, strict=True)], dim=1)


def checked_layers(layers: frozenset[int], n_layers: int) -> frozenset[int]:
    """ValueError for layers that a model does not have."""
    wrong = sorted(layer for layer in layers if not 0 <= layer < n_layers)
    if wrong:
        raise ValueError(f"--maps: the model has {n_layers} layers, numbered from 0: no {wrong[0]}.")
    return layers


def middle_layers(layers: Iterable[int]) -> list[int]:
    """Those from two to four fifths of the depth, at least one."""
    seen = sorted(layers)
    first = len(seen) * 2 // 5
    return seen[first : max(len(seen) * 4 // 5, first + 1)]


def choice_of(argument: str, default: str, *others: str) -> str:
    """The word behind `NAME:`, or the default; ValueError for one that is none of them."""
    if argument not in ("", default, *others):
        raise ValueError(f"--maps: unknown way {argument!r}. Known: {', '.join((default, *others))}.")
    return argument or default


def band_of(argument: str) -> dict[int, float]:
    """`8-20/25`, or with weights `3*0.5/7*2`: layer -> weight; ValueError for anything else."""
    found: dict[int, float] = {}
    try:
        for part in argument.split("/"):
            span, _, weight = part.partition("*")
            first, _, last = span.partition("-")
            found |= dict.fromkeys(range(int(first), int(last or first) + 1), float(weight or 1))
    except ValueError:
        found = {}
    if not found or not abs(sum(found.values())) > 0:
        raise ValueError(f"--maps: {argument!r} names no layers; give them like 8-20, 3/7, or with weights 3*0.5/7*2.")
    return found
