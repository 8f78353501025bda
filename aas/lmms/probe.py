"""Does the geometry tell the truth? Squares are planted in a grey picture; the tokens that change must be where the
views say that the square is."""

from dataclasses import dataclass

import numpy as np
import torch

from aas.geometry import cell_coverage
from aas.lmms.base import LMM

GREY, SQUARE_RGB = 127, (250, 30, 60)
SQUARES = ((0.08, 0.10), (0.60, 0.06), (0.12, 0.58), (0.52, 0.62))  # left, top; as parts of width and height
SIDE = 0.32


@dataclass(frozen=True)
class PlantedSquares:
    """`separation`: how often a token inside a square changes more than one outside (0.5 is chance, 1 perfect), the
    worst of the squares; `view`: the grid that was looked at."""

    view: str
    size_hw: tuple[int, int]
    separation: float


def plant_squares(lmm: LMM, image_hw: tuple[int, int], question: str = "What is it?") -> list[PlantedSquares]:
    """Plant squares in a picture of `image_hw` pixels, one at a time, and look at each of the model's views."""
    height, width = image_hw
    grey = np.full((height, width, 3), GREY, np.uint8)
    empty_keys, grids = _image_keys(lmm, grey, question)
    worst = [1.0] * len(grids)
    for left, top in SQUARES:
        x0, y0 = round(left * width), round(top * height)
        x1, y1 = x0 + round(SIDE * width), y0 + round(SIDE * height)
        image = grey.copy()
        image[y0:y1, x0:x1] = SQUARE_RGB
        keys, _ = _image_keys(lmm, image, question)
        for i, (grid, before, after) in enumerate(zip(grids, empty_keys, keys, strict=True)):
            change = (after - before).norm(dim=-1).numpy()
            coverage = cell_coverage(grid.view, (x0, y0, x1, y1)).ravel()
            worst[i] = min(worst[i], _separation(change[coverage > 0.5], change[coverage == 0]))
    return [PlantedSquares(g.view.name, g.view.size_hw, w) for g, w in zip(grids, worst, strict=True)]


def _image_keys(lmm: LMM, image: np.ndarray, question: str) -> tuple[list[torch.Tensor], tuple]:
    prepared = lmm.prepare(image, question)
    keys = lmm.first_keys(prepared)
    return [keys[grid.positions].flatten(1) for grid in prepared.grids], prepared.grids


def _separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the ROC curve."""
    if not len(inside) or not len(outside):
        return 1.0
    above = (inside[:, None] > outside[None]).mean() + 0.5 * (inside[:, None] == outside[None]).mean()
    return float(above)
