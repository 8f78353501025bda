"""Attention weighted by the values that it brings."""

import torch
from torch import Tensor

from aas.captured import Captured, Needs
from aas.maps.source import Source, choice_of


class Values(Source):
    """Attention times the length of the value that it brings: sinks, whose values are near zero, fall out.

    M[t, j] = 1 / (L H) sum_l,h A[l, h, q(t), j] ||V[l, kv(h), j]||, or with `values:out`
    ||W_O[l, h] V[l, kv(h), j]||, what the head writes (Kobayashi et al. 2020, arXiv 2004.10102).
    """

    minus_token_mean = True

    def __init__(self, argument: str = ""):
        self.out = choice_of(argument, "norm", "out") == "out"

    def needs(self, n_layers: int, n_heads: int) -> Needs:
        return Needs("heads", values=True, outputs=self.out)

    def __call__(self, captured: Captured) -> Tensor:
        total = [
            (attention * self._lengths(captured, layer, len(attention))[:, None]).mean(0)
            for layer, attention in captured.attention.items()
        ]
        return torch.stack(total).mean(0)

    def _lengths(self, captured: Captured, layer: int, n_heads: int) -> Tensor:
        """Float32 [H, N]."""
        values = captured.values[layer]
        values = values[:, captured.columns.to(values.device)].float()
        group = n_heads // len(values)
        if not self.out:
            return values.norm(dim=-1).repeat_interleave(group, 0).cpu()
        written = captured.outputs[layer].float()  # [D, H, d]: kept as large as one head at a time
        return torch.stack([(values[h // group] @ written[:, h].T).norm(dim=-1) for h in range(n_heads)]).cpu()
