"""Where a model's image tokens are, and their attention as a map on the image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aas.capture import CaptureError
from aas.geometry import combined_map
from aas.records import View

COMBINED = "combined"


@dataclass(frozen=True)
class TokenGrid:
    """A view and where its tokens are: `positions` int64 [h * w], row-major, in the prompt (or, of a model with
    cross-attention, among that attention's keys)."""

    view: View
    positions: Tensor

    def __post_init__(self) -> None:
        height, width = self.view.size_hw
        if len(self.positions) != height * width:
            raise CaptureError(
                f"The prompt holds {len(self.positions)} image tokens where a grid of {height} x {width} was expected: "
                "this model's layout is not known."
            )


def runs_of_tokens(positions: Tensor, lengths: Sequence[int]) -> Sequence[Tensor]:
    """The image's tokens as consecutive runs, one for each of `lengths`; CaptureError if they are not as many."""
    if len(positions) != sum(lengths):
        raise CaptureError(
            f"The prompt holds {len(positions)} image tokens where {' + '.join(map(str, lengths))} were expected: "
            "this model's layout is not known."
        )
    return positions.split(list(lengths))


def _chosen(grids: Sequence[TokenGrid], view: str | None) -> Sequence[TokenGrid]:
    if view == COMBINED:
        return grids
    named = {grid.view.name: grid for grid in grids}
    if view is not None and view not in named:
        raise ValueError(f"No view {view!r} of this image. There are: {', '.join(named)}, {COMBINED}.")
    return [grids[0] if view is None else named[view]]


def positions_of(grids: Sequence[TokenGrid], view: str | None) -> Tensor:
    """Of the tokens of the grid called `view`: the first grid's if None, all grids' if "combined"."""
    return torch.cat([grid.positions for grid in _chosen(grids, view)])


def sizes_of(grids: Sequence[TokenGrid], view: str | None) -> tuple[tuple[int, int], ...]:
    """Rows and columns of the grid called `view`, or, of "combined", of each."""
    return tuple(grid.view.size_hw for grid in _chosen(grids, view))


def on_grid(maps: np.ndarray, grids: Sequence[TokenGrid], view: str | None) -> tuple[np.ndarray, View]:
    """`maps` [..., n] over the chosen grids' tokens as one map [..., h, w] and its view."""
    parts, start = [], 0
    for grid in _chosen(grids, view):
        height, width = grid.view.size_hw
        part = maps[..., start : start + height * width]
        parts.append((part.reshape(*part.shape[:-1], height, width), grid.view))
        start += height * width
    grid_maps, grid_view = parts[0] if len(parts) == 1 else combined_map(parts)
    return np.ascontiguousarray(grid_maps), grid_view
