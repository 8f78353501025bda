"""Attention followed through the layers."""

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source, band_of, checked_layers


class Rollout(Source):
    """Attention followed down through the layers of the upper half, or those named (`rollout:14-27`).

    P = prod_l (A_l + I) / 2 with A_l = 1 / H sum_h w_lh A[l, h], w_lh the mean over queries of the largest attention to
    an image token, over the largest of all heads (DecAF, arXiv 2510.19592); M[t, j] = P[q(t), j]. Only the rows of the
    answer are followed: r <- (r + r A_l) / 2 from the top layer down.
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        self.layers = frozenset(band_of(argument)) if argument else None

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        layers = frozenset(range(n_layers // 2, n_layers)) if self.layers is None else self.layers
        return Needs(matrices=checked_layers(layers, n_layers))

    def __call__(self, captured: Captured) -> Tensor:
        layers = sorted(captured.matrices if self.layers is None else self.layers, reverse=True)
        matrices = [captured.matrices[layer] for layer in layers if layer in captured.matrices]
        followed = torch.eye(len(matrices[0]), device=matrices[0].device)[captured.rows]
        for matrix in matrices:
            followed = (followed + followed.to(matrix.device) @ matrix) / 2
        return followed.cpu()[:, captured.columns]
