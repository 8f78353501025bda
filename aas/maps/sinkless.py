"""Attention without the sinks among the image's tokens."""

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source

LEAST = 20.0  # of a dimension's size over the state's root mean square, from which on it belongs to a sink
FIRST_LAYER = 2  # that a sink can be seen in


class Sinkless(Source):
    """Attention without sinks: image tokens that draw it whatever is said (arXiv 2503.03321), found in each model.

    M[t, j] = 1 / (L H) sum_l,h A[l, h, q(t), j] [j is no sink in l]; a token is a sink in layer l >= 2 where
    max over d in D of |h_l[j, d]| / rms(h_l[j]) > 20, h_l what comes into the layer. D are the dimensions in which the
    sequence's first token, where language models keep their own sink, exceeds that in any of these layers.
    `sinkless:12` takes another limit than 20. Where a model has no such dimension nothing is taken out.
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        try:
            self.least = float(argument or LEAST)
        except ValueError:
            raise ValueError(
                f"--maps sinkless:{argument}: give a number, the limit from which on it is a sink."
            ) from None

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs("layers", residuals=frozenset(range(FIRST_LAYER, n_layers)))

    def __call__(self, captured: Captured) -> Tensor:
        sinks = self.sinks(captured)
        maps = [
            captured.of_layer(layer).masked_fill(sinks[layer], 0.0) if layer in sinks else captured.of_layer(layer)
            for layer in captured.attention
        ]
        return torch.stack(maps).mean(0)

    def sinks(self, captured: Captured) -> dict[int, Tensor]:
        """Layer -> bool [N], which image tokens are sinks there."""
        sizes = {
            layer: states.float().abs() / states.float().pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-30)
            for layer, states in captured.residuals.items()
            if layer >= FIRST_LAYER  # another source may have wanted the first ones
        }
        dimensions = torch.stack([size[0].cpu() > self.least for size in sizes.values()]).any(0).nonzero()[:, 0]
        return {
            layer: (size[captured.columns.to(size.device)][:, dimensions.to(size.device)] > self.least).any(-1).cpu()
            for layer, size in sizes.items()
        }
