"""Attention relative to its mean over the answer."""

from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source


class Ratio(Source):
    """How many times more than usual a token attends: the logarithm of attention minus its mean over the answer.

    M[t, j] = log(A[t, j] + e) - mean_t' log(A[t', j] + e), with A the mean over layers and heads and e = 1 / N of the
    attention that token t pays to the whole image: without a floor empty cells would be amplified (after
    arXiv 2502.17422, 2509.06461, with the answer itself as the contrast).
    """

    minus_token_mean = True

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs("mean")

    def __call__(self, captured: Captured) -> Tensor:
        attention = captured.mean()
        logarithm = (attention + attention.mean(1, keepdim=True)).clamp(min=1e-30).log()
        counted = logarithm if captured.counted is None else logarithm[list(captured.counted)]
        return logarithm - counted.mean(0, keepdim=True) if len(counted) > 1 else logarithm
