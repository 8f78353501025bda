"""Takes note of what a model does, as attention is captured."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from aas.capture import AttentionCapture, Call, Selection, Watch, attention_rows, mask_of_rows
from aas.captured import Needs
from aas.internals.decoder import Decoder
from aas.internals.derivatives import Derivatives, joined

ROWS_AT_ONCE = 128  # of a whole attention matrix


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
        self._derivatives = Derivatives(decoder) if needs.derivatives and decoder is not None else None
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
        if self._derivatives is not None:
            self._derivatives.enter(index, self._of_rows(hidden), more, named)

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
        if self._derivatives is not None:
            assert call.output is not None
            self._derivatives.bring(index, self._of_rows(call.output))
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
        return joined(self._hidden[index], dim=1)

    def values(self) -> dict[int, Tensor]:
        """By layer [B, H_kv, S, D_v] with the padding, of cross-attention those of its keys."""
        return {index: joined(parts, dim=2) for index, parts in self._values.items()}

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
        """As `Derivatives.by_layer`."""
        assert self._derivatives is not None
        return self._derivatives.by_layer(watched, words)


def _whole_rows(call: Call, rows: Tensor) -> Tensor:
    """Attention float32 [H, R, S] of some of the queries of a batch of one."""
    every = torch.arange(call.key.shape[2], device=rows.device)[None]
    mask = mask_of_rows(call, rows[None])
    return attention_rows(call.query[:, :, rows], call.key, mask, call.scaling, every, call.softcap, call.sinks)[0]
