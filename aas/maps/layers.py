"""Attention of some layers."""

from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source, band_of, checked_layers, middle_layers


class Layers(Source):
    """Attention of a band of layers: the middle-late ones, or those named (`layers:8-20`, `layers:3*0.5/7*2`).

    M[t, j] = sum_l w_l 1 / H sum_h A[l, h, q(t), j] / sum_l w_l. Without names the layers from two to four fifths of
    the depth count, where heads that look at what is spoken of were found (arXiv 2606.14703, 2502.17422).
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        self.weights = band_of(argument) if argument else None

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs("layers", checked_layers(frozenset(self.weights), n_layers) if self.weights else None)

    def __call__(self, captured: Captured) -> Tensor:
        weights = self.weights or dict.fromkeys(middle_layers(captured.attention), 1.0)
        maps = [weight * self.of_layer(captured, layer) for layer, weight in weights.items()]
        return sum(maps) / sum(weights.values())  # type: ignore[return-value]

    def of_layer(self, captured: Captured, layer: int) -> Tensor:
        """What is averaged, float32 [T, N]."""
        return captured.of_layer(layer)
