"""How a token's logit would change with what attention brings to its row, layer by layer."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers import Cache

from aas.capture import Watch
from aas.internals.decoder import Decoder


class Derivatives:
    """What is taken note of while the model runs, pass after pass, and what is made of it in the end."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._entered: dict[int, list[Tensor]] = defaultdict(list)  # [B, R, D]: the wanted rows that came into a layer
        self._brought: dict[int, list[Tensor]] = defaultdict(list)  # [B, R, H, D_v]: what attention returned to them
        self._arguments: dict[int, tuple[list[Any], dict[str, Any]]] = {}  # of the last pass: all else

    def enter(self, index: int, rows: Tensor, more: list[Any], named: dict[str, Any]) -> None:
        """A layer is given these rows of its states [B, R, D], and `more` and `named` beside the states."""
        self._entered[index].append(rows)
        self._arguments[index] = (
            [_held(value) for value in more],
            {name: _held(value, name) for name, value in named.items() if name != "hidden_states"},
        )

    def bring(self, index: int, rows: Tensor) -> None:
        """A layer's attention returned [B, R, H, D_v] to these rows."""
        self._brought[index].append(rows)

    def by_layer(self, watched: Callable[[Watch], AbstractContextManager[None]], words: Tensor) -> dict[int, Tensor]:
        """Of each layer, [B, R, H, D_v]: the derivative of w . n(x) by what attention brings to a row, where x leaves
        the layer, n is the final norm and w a row of `words` [B, R, D].

        Only the wanted rows go through what follows a layer's attention, once forwards and once backwards: a
        vector-Jacobian product of one row each. What attention brings is linear in its weights, so that the
        derivative by the weight of head h on column j is this one times the value of j.
        """
        found = {}
        for index in self._brought:
            layer, (more, named) = self.decoder.layers[index], tree_map(_of_one_query, self._arguments[index])
            entered, brought = (
                joined(parts[index], dim=1)[:, : words.shape[1]] for parts in (self._entered, self._brought)
            )
            given = brought.detach().requires_grad_()
            with watched(_Given(given)), torch.enable_grad():
                left = layer(entered, *more, **named)
                logits = self.decoder.norm(left if isinstance(left, Tensor) else left[0]) * words.to(brought.device)
                (found[index],) = torch.autograd.grad(logits.float().sum(), given)
        return found


class _Given(Watch):
    """Attention is not computed: it returns `output` [B, Q, H, D_v]."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output = output

    def instead(self) -> Tensor:
        return self.output


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """One tensor of several, which takes their place."""
    if len(parts) > 1:
        parts[:] = [torch.cat(parts, dim)]
    return parts[0]


def _held(value: Any, name: str = "") -> Any:
    """An argument of a layer whose attention will be given: neither the mask nor the keys."""
    return None if name == "attention_mask" or isinstance(value, Cache) else value


def _of_one_query(value: Any) -> Any:
    """Rotary embeddings [..., Q, d] of one query, which any number of rows can share: no attention is computed."""
    return value[..., :1, :] if isinstance(value, Tensor) and value.ndim > 2 else value
