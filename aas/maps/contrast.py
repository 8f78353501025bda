"""Attention against that of a question that asks for nothing in particular."""

from dataclasses import replace

from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.layers import Layers

LEAST = 1e-8  # a layer's window may have passed the image


class Contrast(Layers):
    """Attention over that of a generic question about the same image, of the layers from two to four fifths of the
    depth, or those named (`contrast:14`, `contrast:14-20`).

    M[t, j] = mean over l of A_l[q(t), j] / (G_l[j] + e), A_l the mean over heads, G_l that of the row that would
    predict the first word of an answer to "Write a general description of the image.", e = 1 / N of the attention that
    row pays to the whole image (arXiv 2502.17422 takes one layer and no floor). It costs one more pass over the prompt.
    """

    minus_token_mean = False

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return replace(super().needs(n_layers, n_heads), generic=True)

    def of_layer(self, captured: Captured, layer: int) -> Tensor:
        """Attention over the generic one, float32 [T, N]."""
        generic = captured.generic[layer]
        return captured.of_layer(layer) / (generic + generic.mean()).clamp(min=LEAST)
