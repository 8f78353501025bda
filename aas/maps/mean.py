"""The method's own map: attention averaged over layers and heads, minus its mean over the answer."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source


class Mean(Source):
    """The published method's: attention, the mean over all layers and heads, minus the mean over the answer's tokens.

    M[t, j] = 1 / (L H) sum_l,h A[l, h, q(t), j] (arXiv 2410.08209, section 3.2).
    """

    minus_token_mean = True

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs("mean")

    def __call__(self, captured: Captured) -> Tensor:
        return captured.mean()


def without_token_mean(maps: np.ndarray, of: Sequence[int] | None = None) -> np.ndarray:
    """What is specific to each token: `maps` [tokens, h, w] minus their mean over the answer's tokens (section 3.2 of
    arXiv 2410.08209): of all, or `of` these. Of a single token nothing would remain, so it stays as it is."""
    answer = maps if of is None else maps[list(of)]
    return maps - answer.mean(axis=0, keepdims=True) if len(answer) > 1 else maps
