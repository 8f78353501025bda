"""What a model does beside attending to the image, for the map sources that need it (`aas.captured.Needs`)."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from transformers import Cache, PreTrainedModel

from aas.capture import AttentionCapture, Call, CaptureError, Selection, Watch, attention_rows, mask_of_rows
from aas.captured import Needs

ROWS_AT_ONCE = 128  # of a whole attention matrix


@dataclass(frozen=True)
class Decoder:
    """A language model's layers, the norm behind them, and the matrix that makes logits of what leaves it."""

    layers: nn.ModuleList
    norm: nn.Module
    head: nn.Module

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self:
        """ValueError for a model that is built in another way."""
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        layers, norm = getattr(decoder, "layers", None), getattr(decoder, "norm", None)
        if not layers or norm is None or head is None:
            raise ValueError(f"{type(model).__name__} has no stack of layers with a norm behind it.")
        return cls(layers, norm, head)

    def word_rows(self, token_ids: Tensor) -> Tensor:
        """The output matrix's rows of tokens, [..., D]; those of tokens that it does not have stand for nothing."""
        weight = self.head.weight
        assert isinstance(weight, Tensor)
        return weight.detach()[token_ids.to(weight.device).clamp(max=len(weight) - 1)]


class Internals(AttentionCapture):
    """Captures attention as `needs` wants it, and beside it, by layer:

    `values` [B, H_kv, S, D_v], and `hidden` [B, S, D] that comes in, of all passes; of a replay `matrices`, of each
    image [S, S] without its padding. While an answer is written its last token never comes in: S is one less. `places`:
    of each image, where its sequence begins and its columns int64 [n], counted from there.
    """

    def __init__(
        self,
        columns: Tensor,
        needs: Needs,
        decoder: Decoder | None,
        places: Sequence[tuple[int, Tensor]],
        rows: Tensor | None = None,
        records: Callable[[nn.Module], bool] | None = None,
        cross: bool = False,
    ):
        layers, heads = (None if some is None else tuple(sorted(some)) for some in (needs.layers, needs.heads))
        super().__init__(columns, Selection(layers, heads, needs.attention or "mean"), rows, records, cross)
        self.needs, self.decoder, self.places = needs, decoder, places
        self.matrices: dict[int, list[Tensor]] = {}
        self.modules: dict[int, nn.Module] = {}
        # Pass after pass, by layer.
        self._values: dict[int, list[Tensor]] = defaultdict(list)
        self._hidden: dict[int, list[Tensor]] = defaultdict(list)
        self._entered: dict[int, list[Tensor]] = defaultdict(list)  # [B, R, D]: `hidden` of the wanted rows
        self._brought: dict[int, list[Tensor]] = defaultdict(list)  # [B, R, H, D_v]: what attention returned to them
        self._arguments: dict[int, tuple[list[Any], dict[str, Any]]] = {}  # of the last pass: all else
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        if self.decoder is not None:
            modules = [*self.decoder.layers, self.decoder.norm]
            looked_at = range(len(modules)) if self.needs.derivatives else self.needs.hidden
            self._hooks = [
                modules[i].register_forward_pre_hook(partial(self._enter, i), with_kwargs=True) for i in looked_at
            ]
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for hook in self._hooks:
            hook.remove()

    def _enter(self, index: int, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden, *more = arguments or (named["hidden_states"],)
        if index in self.needs.hidden:
            self._hidden[index].append(hidden)
        if self.needs.derivatives:
            self._entered[index].append(self._of_rows(hidden))
            self._arguments[index] = (
                [_held(value) for value in more],
                {name: _held(value, name) for name, value in named.items() if name != "hidden_states"},
            )

    def see(self, module: nn.Module, call: Call) -> None:
        """As a watch does, and takes note of the module."""
        super().see(module, call)
        if self.records is None or self.records(module):
            self.modules[int(module.layer_idx)] = module  # type: ignore[arg-type]

    def record(self, index: int, call: Call) -> None:
        """Takes note of one layer's call."""
        super().record(index, call)
        if self.needs.values:
            assert call.value is not None
            self._keep_values(self._values[index], call.value, call.query.shape[2])
        if self.needs.derivatives:
            assert call.output is not None
            self._brought[index].append(self._of_rows(call.output))
        if index in self.needs.matrices:
            self.matrices[index] = [self._matrix(call, image) for image in range(len(self.places))]

    def _keep_values(self, kept: list[Tensor], value: Tensor, n_new: int) -> None:
        if not kept or (not self.cross and value.shape[2] == sum(part.shape[2] for part in kept) + n_new):
            kept[:] = [value]  # the cache's own: nothing is stored twice
        elif not self.cross:
            kept.append(value[:, :, -n_new:].clone())  # the cache has dropped some

    def _of_rows(self, values: Tensor) -> Tensor:
        """[B, Q, ...] to [B, R, ...], of a pass of generation the last row."""
        if self.rows is None:
            return values[:, -1:].clone()  # a prompt's others are not held
        rows = self.rows.to(values.device)
        return values[torch.arange(len(rows), device=rows.device)[:, None], rows]

    def hidden(self, index: int) -> Tensor:
        """The states that came into a layer, [B, S, D] with the padding; its number is that of layers: what left."""
        return _joined(self._hidden[index], dim=1)

    def values(self) -> dict[int, Tensor]:
        """By layer [B, H_kv, S, D_v] with the padding, of cross-attention those of its keys."""
        return {index: _joined(parts, dim=2) for index, parts in self._values.items()}

    def _matrix(self, call: Call, image: int) -> Tensor:
        """One image's attention [S, S], its heads put together: their mean, each weighted by the mean over queries of
        its largest attention to an image token, over the largest of all heads (DecAF, arXiv 2510.19592)."""
        start, columns = self.places[image]
        mask = None if call.mask is None else call.mask[image % len(call.mask)][None, ..., start:]
        mask = mask if mask is None or mask.ndim == 2 else mask[:, :, start:]
        one = replace(call, query=call.query[image, None, :, start:], key=call.key[image, None, :, start:], mask=mask)
        every = torch.arange(one.query.shape[2], device=one.query.device)
        parts = every.split(ROWS_AT_ONCE)
        columns = columns.to(every.device)
        largest = torch.cat([_whole_rows(one, rows)[..., columns].amax(-1) for rows in parts], dim=1).mean(1)
        weights = largest / largest.max()
        mixed = [torch.einsum("h,hrs->rs", weights, _whole_rows(one, rows)) for rows in parts]
        return torch.cat(mixed) / len(weights)

    def derivatives(self, watched: Callable[[Watch], AbstractContextManager[None]], words: Tensor) -> dict[int, Tensor]:
        """Of each layer, [B, R, H, D_v]: the derivative of w . n(x) by what attention brings to a row, where x leaves
        the layer, n is the final norm and w a row of `words` [B, R, D].

        Only the wanted rows go through what follows a layer's attention, once forwards and once backwards: a
        vector-Jacobian product of one row each. What attention brings is linear in its weights, so that the
        derivative by the weight of head h on column j is this one times the value of j.
        """
        assert self.decoder is not None
        found = {}
        for index in self._brought:
            layer, (more, named) = self.decoder.layers[index], tree_map(_of_one_query, self._arguments[index])
            entered, brought = (
                _joined(parts[index], dim=1)[:, : words.shape[1]] for parts in (self._entered, self._brought)
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


def _joined(parts: list[Tensor], dim: int) -> Tensor:
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


def _whole_rows(call: Call, rows: Tensor) -> Tensor:
    """Attention float32 [H, R, S] of some of the queries of a batch of one."""
    every = torch.arange(call.key.shape[2], device=rows.device)[None]
    mask = mask_of_rows(call, rows[None])
    return attention_rows(call.query[:, :, rows], call.key, mask, call.scaling, every, call.softcap, call.sinks)[0]


def output_matrix(attention: nn.Module, n_heads: int) -> Tensor:
    """W_O of an attention module, [D, H, D_v]: what it makes of each head's output. ValueError where it has none."""
    weight = getattr(getattr(attention, "o_proj", None), "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise CaptureError(f"{type(attention).__name__} has no matrix o_proj of numbers: take the source values.")
    return weight.detach().unflatten(1, (n_heads, -1))
