"""Does a loaded model do what its family says? Its geometry by planted squares, its capture by eager attention."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aas.capture import Call, FirstKeys, Watch
from aas.geometry import cell_coverage
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid, positions_of
from aas.lmms.prepared import DEFAULT_OPTIONS, AskOptions, Prepared
from aas.records import View

GREY, SQUARE_RGB = 127, (250, 30, 60)
SQUARES = ((0.08, 0.10), (0.60, 0.06), (0.12, 0.58), (0.52, 0.62))  # left, top; as parts of width and height
SIDE = 0.32
TILE = 16  # pixels
SMALL_SIDE = 0.1
SMALL_CENTRES = tuple((x, y) for y in (0.16, 0.39, 0.61, 0.84) for x in (0.16, 0.39, 0.61, 0.84))  # parts of the sides
SCALES = tuple(1.1**i for i in range(-4, 5))  # that a view's sides are tried at: 0.68 to 1.46
CLEARLY = 0.18  # how much better another scale must fit: between the cells of a coarse grid many fit nearly as well
NO_MATTER = 1.15  # a scale up to here is what a coarse grid leaves open
FEWEST_CELLS = 6  # to a side, from which on a scale of 1.2 is seen


@dataclass(frozen=True)
class PlantedSquares:
    """`separation`: how often a token inside a square changes more than one outside (0.5 is chance, 1 perfect), the
    worst of the squares, in that picture in which the model shows it best; `view`: the grid that was looked at."""

    view: str
    size_hw: tuple[int, int]
    separation: float


def plant_squares(lmm: LMM, image_hw: tuple[int, int], question: str = "What is it?") -> list[PlantedSquares]:
    """Plant squares in pictures of `image_hw` pixels, one at a time: in each of the model's views the tokens that
    change must be where the view says that the square is.

    In a grey picture and in one of tiles, of which the better counts: in the first a deep convolutional tower's cells
    see a square from far away, and in the second a discrete tokenizer's codes may stay what they were.
    """
    found = [
        _planted(lmm, picture, question) for picture in (np.full((*image_hw, 3), GREY, np.uint8), _tiles(image_hw))
    ]
    return [max(both, key=lambda one: one.separation) for both in zip(*found, strict=True)]


def _planted(lmm: LMM, picture: np.ndarray, question: str) -> list[PlantedSquares]:
    height, width = picture.shape[:2]
    empty_keys, grids = _image_keys(lmm, picture, question)
    worst = [1.0] * len(grids)
    for left, top in SQUARES:
        x0, y0 = round(left * width), round(top * height)
        x1, y1 = x0 + round(SIDE * width), y0 + round(SIDE * height)
        image = picture.copy()
        image[y0:y1, x0:x1] = SQUARE_RGB
        keys, _ = _image_keys(lmm, image, question)
        for i, (grid, before, after) in enumerate(zip(grids, empty_keys, keys, strict=True)):
            change = (after - before).norm(dim=-1).numpy()
            coverage = cell_coverage(grid.view, (x0, y0, x1, y1)).ravel()
            worst[i] = min(worst[i], _separation(change[coverage > 0.5], change[coverage == 0]))
    return [PlantedSquares(g.view.name, g.view.size_hw, w) for g, w in zip(grids, worst, strict=True)]


def _tiles(image_hw: tuple[int, int]) -> np.ndarray:
    """A picture of tiles of colours at random."""
    n_rows, n_columns = (-(-side // TILE) for side in image_hw)
    colours = np.random.default_rng(0).integers(0, 256, (n_rows, n_columns, 3), np.uint8)
    return colours.repeat(TILE, 0).repeat(TILE, 1)[: image_hw[0], : image_hw[1]]


def fitted_scales(lmm: LMM, image_hw: tuple[int, int], question: str = "What is it?") -> list[float]:
    """Of each of the model's views: how much larger than it says its sides seem to be, 1 if all is well, or not to be
    seen: on a grid of fewer than FEWEST_CELLS to a side a scale of 1.2 may be lost between the cells.

    Small squares are planted one at a time. The tokens that change are compared with the cells that each square would
    cover if the view were larger or smaller about its centre (`SCALES`, both sides apart): the best correlation wins,
    and of the two sides the worse one counts.
    """
    height, width = image_hw
    grey = np.full((height, width, 3), GREY, np.uint8)
    empty_keys, grids = _image_keys(lmm, grey, question)
    boxes = [_small_square(centre, image_hw) for centre in SMALL_CENTRES]
    changes: list[list[np.ndarray]] = [[] for _ in grids]
    for x0, y0, x1, y1 in boxes:
        image = grey.copy()
        image[y0:y1, x0:x1] = SQUARE_RGB
        keys, _ = _image_keys(lmm, image, question)
        for found, before, after in zip(changes, empty_keys, keys, strict=True):
            found.append((after - before).norm(dim=-1).numpy())
    return [_best_scale(grid.view, boxes, np.array(found)) for grid, found in zip(grids, changes, strict=True)]


def _small_square(centre: tuple[float, float], image_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    height, width = image_hw
    half = max(1, round(SMALL_SIDE * min(image_hw) / 2))
    x, y = round(centre[0] * width), round(centre[1] * height)
    return x - half, y - half, x + half, y + half


def _best_scale(view: View, boxes: Sequence[tuple[int, int, int, int]], changes: np.ndarray) -> float:
    """`changes` [squares, cells]. 1 unless another scale fits clearly better."""
    changes = changes / changes.max(1, keepdims=True).clip(min=1e-12)

    def likeness(scale_x: float, scale_y: float) -> float:
        scaled = _about_centre(view, scale_x, scale_y)
        covered = np.array([cell_coverage(scaled, box).ravel() for box in boxes])
        if not covered.any() or not changes.any():
            return 0.0
        return float(np.corrcoef(covered.ravel(), changes.ravel())[0, 1])

    best_x, best_y = max(product(SCALES, SCALES), key=lambda scales: likeness(*scales))
    worst = max(best_x, best_y, key=lambda scale: abs(np.log(scale)))
    is_clear = likeness(best_x, best_y) > likeness(1, 1) + CLEARLY and abs(np.log(worst)) > np.log(NO_MATTER)
    return worst if is_clear else 1.0


def _about_centre(view: View, scale_x: float, scale_y: float) -> View:
    x0, y0, x1, y1 = view.box_xyxy
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    half_x, half_y = (x1 - x0) / 2 * scale_x, (y1 - y0) / 2 * scale_y
    return replace(view, box_xyxy=(x - half_x, y - half_y, x + half_x, y + half_y))


def _image_keys(lmm: LMM, image: np.ndarray, question: str) -> tuple[list[Tensor], Sequence[TokenGrid]]:
    prepared = lmm.prepare(image, question)
    keys = first_keys(lmm, prepared)
    return [keys[grid.positions].flatten(1) for grid in prepared.grids], prepared.grids


def first_keys(lmm: LMM, prepared: Prepared) -> Tensor:
    """What each token of the prompt (or key of the cross-attention) brings into the model, float32 [S, H_kv, D]."""
    watch = FirstKeys(lmm.records)
    inputs, _ = lmm.collated([prepared.inputs], [positions_of(prepared.grids, None)], DEFAULT_OPTIONS.seed)
    with lmm.watched(watch):
        lmm.model(**inputs, **lmm.forward_arguments(inputs))
    assert watch.keys is not None
    return watch.keys[0].transpose(0, 1).float().cpu()


def _separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the ROC curve."""
    if not len(inside) or not len(outside):
        return 1.0
    above = (inside[:, None] > outside[None]).mean() + 0.5 * (inside[:, None] == outside[None]).mean()
    return float(above)


@dataclass(frozen=True)
class AgainstEager:
    """`difference`: the largest one between captured and eager maps, as part of the largest eager value; `tokens`:
    of the answer that was looked at."""

    answer: str
    tokens: int
    difference: float


def compare_with_eager(lmm: LMM, image: np.ndarray, question: str, max_new_tokens: int = 8) -> AgainstEager:
    """Let the model answer shortly, and compare its maps with those of transformers' own eager attention."""
    one = lmm.prepare(image, question)
    ((answer, captured),) = lmm.run([one], AskOptions(max_new_tokens))
    given = replace(one, answer_ids=torch.tensor(answer.token_ids))
    eager = _eager_maps(lmm, given).reshape(captured.maps.shape)
    difference = np.abs(captured.maps - eager).max() / np.abs(eager).max()
    return AgainstEager(answer.text, len(answer.token_ids), float(difference))


class _Modules(Watch):
    """The attention modules that count, in the order in which they are called."""

    def __init__(self, lmm: LMM):
        super().__init__(lmm.records)
        self.found: list[nn.Module] = []

    def see(self, module: nn.Module, call: Call) -> None:
        if self.records is None or self.records(module):
            self.found.append(module)


def _eager_maps(lmm: LMM, given: Prepared) -> np.ndarray:
    """[tokens, n], the mean of layers and heads, from the weights that each eager attention module returns.

    They are looked at module by module, so that one layer's matrix exists at a time.
    """
    assert given.answer_ids is not None
    inputs, columns, rows = lmm.replay_inputs([given], [given.answer_ids], AskOptions())
    modules = _Modules(lmm)
    layers: list[Tensor] = []

    def keep_rows(module: nn.Module, arguments: Any, output: Any) -> None:
        weights = output[1][0].float().mean(0)  # [Q, S]
        layers.append(weights[rows[0].to(weights.device)][:, columns[0].to(weights.device)].cpu())

    with lmm.watched(modules):
        lmm.model(**inputs, **lmm.forward_arguments(inputs))
    hooks = [module.register_forward_hook(keep_rows) for module in modules.found]
    try:
        with lmm.eager():
            lmm.model(**inputs, **lmm.forward_arguments(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(layers).mean(0).numpy()
