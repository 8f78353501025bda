"""Attention against that of a question that asks for nothing in particular."""

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source, band_of, checked_layers, middle_layers

LEAST = 1e-8  # a layer's window may have passed the image


class Contrast(Source):
    """Attention over that of a generic question about the same image, of the layers from two to four fifths of the
    depth, or those named (`contrast:14`, `contrast:14-20`).

    M[t, j] = mean over l of A_l[q(t), j] / (G_l[j] + e), A_l the mean over heads, G_l that of the row that would
    predict the first word of an answer to "Write a general description of the image.", e = 1 / N of the attention that
    row pays to the whole image (arXiv 2502.17422 takes one layer and no floor). It costs one more pass over the prompt.
    """

    def __init__(self, argument: str = ""):
        self.weights = band_of(argument) if argument else None

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        named = checked_layers(frozenset(self.weights), n_layers) if self.weights else None
        return Needs("layers", named, generic=True)

    def __call__(self, captured: Captured) -> Tensor:
        weights = self.weights or dict.fromkeys(middle_layers(captured.attention), 1.0)
        maps = []
        for layer, weight in weights.items():
            generic = captured.generic[layer]
            floored = (generic + generic.mean()).clamp(min=LEAST)
            maps.append(weight * captured.of_layer(layer) / floored)
        return torch.stack(maps).sum(0) / sum(weights.values())
