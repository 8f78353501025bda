"""Values on one view's grid, read at the cells of another's."""

import torch
from torch import Tensor
from torch.nn import functional as F

from aas.records import View


def cell_centres(view: View) -> tuple[Tensor, Tensor]:
    """x float32 [w] and y [h] of the centres of a view's cells, in pixels of the image."""
    height, width = view.size_hw
    x0, y0, x1, y1 = view.box_xyxy
    return torch.linspace(x0, x1, 2 * width + 1)[1::2], torch.linspace(y0, y1, 2 * height + 1)[1::2]


def cells_within(view: View, onto: View) -> Tensor:
    """Where the centres of the cells of `onto` lie in the box of `view`, as `grid_sample` takes it: float32 [h, w, 2],
    x and y from -1 at the box's left and top edge to 1 at its right and bottom."""
    left, top, right, bottom = view.box_xyxy
    centres_x, centres_y = cell_centres(onto)
    x = (centres_x - left) / (right - left) * 2 - 1
    y = (centres_y - top) / (bottom - top) * 2 - 1
    return torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)


def resampled(values: Tensor, view: View, onto: View) -> Tensor:
    """`values` [P, h, w] of `view` at the cells of `onto`, float32 [P, H, W]: bilinear, with gradients.

    A cell whose centre the view does not cover gets the least of its map: nothing is known there. Where the view was
    padded the padding falls away, with no rounding to whole cells.
    """
    where = cells_within(view, onto).to(values.device)
    values = values.float()
    sampled = F.grid_sample(values[None], where[None], mode="bilinear", padding_mode="border", align_corners=False)[0]
    inside = (where.abs() <= 1).all(-1)
    return torch.where(inside, sampled, values.detach().amin((1, 2), keepdim=True))
