"""Attention to the image, captured while a model runs with its own fast attention.

One attention function, registered with transformers, returns exactly what the model's own implementation (sdpa, flash)
returns and keeps beside it what the wanted rows need: `softmax(q kT * scale + mask)` over **all** keys, then the image
columns, in float32. No layers x heads x S x S tensor ever exists.

Row t of a map belongs to answer token t. With `alignment="predict"` it is the attention of the query that predicts the
token (the previous position); with `"self"`, of the query whose input is the token.

In generation the queries of many steps are stashed and their rows computed together against the keys of the cache,
which still holds every key they saw; where the cache has dropped keys (a sliding window), a row is computed at once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from aas.choices import Keep

STASHED_STEPS = 32
TRANSIENT_BYTES = 128 * 2**20  # of scores that exist at once
TRANSIENT_BYTES_ON_GPU = 2**30  # where every part costs its launches

_active: ContextVar["Watch | None"] = ContextVar("aas_watch", default=None)


class CaptureError(RuntimeError):
    """The model's attention cannot be captured exactly; the message says why and what to do."""


@dataclass(frozen=True)
class Selection:
    """What is kept of layers x heads.

    `layers`, `heads`: indices that are looked at, all if None (heads may count from the end). `keep`: "mean" of all of
    them; one map per "layers", averaged over heads; or every map ("heads").
    """

    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    keep: Keep = "mean"


@dataclass(frozen=True)
class Call:
    """One call of the attention function: tensors as transformers hands them over.

    `query` [B, H, Q, D]; `key` [B, H_kv, S, D]; `mask` [B, 1, Q, S] as sdpa takes it, [B, S] as a flash kernel does, or
    None; `sinks` [H]; `window`: keys that a query sees at most, itself included. `value` [B, H_kv, S, D_v] and what the
    attention returned, `output` [B, Q, H, D_v].
    """

    query: Tensor
    key: Tensor
    mask: Tensor | None
    scaling: float
    softcap: float | None = None
    sinks: Tensor | None = None
    window: int | None = None
    is_causal: bool = True
    value: Tensor | None = None
    output: Tensor | None = None


MEAN_OF_ALL = Selection()
NOTHING = Selection(layers=())


def attention_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    columns: Tensor,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """The chosen entries of the attention matrix, float32 [B, H, R, N].

    `query` [B, H, R, D]: the wanted rows, `key` [B, H_kv, S, D], as they go into attention (after rotary embedding), H
    a multiple of H_kv. `mask` [B or 1, H or 1, R, S]: bool (True is seen) or additive, None where every key is seen.
    `columns` int64 [B, N], positions in S. `softcap`: scores become `softcap * tanh(scores / softcap)`. `sinks` [H]: a
    score per head that takes part in the softmax and has no key.
    """
    batch, n_heads, n_rows, _ = query.shape
    n_keys = key.shape[2]
    # Float32 copies of scores (twice: masked, exponentials) and keys exist at once: many rows or samples go in parts.
    per_key, per_row = 4 * key[0].numel(), 8 * n_heads * n_keys
    transient = TRANSIENT_BYTES_ON_GPU if key.is_cuda else TRANSIENT_BYTES
    row_part = max(1, (transient - per_key) // per_row)
    if row_part < n_rows:
        parts = [slice(start, start + row_part) for start in range(0, n_rows, row_part)]
        masks = [mask if mask is None else mask[:, :, part] for part in parts]
        some = (query[:, :, part] for part in parts)
        return torch.cat(
            [attention_rows(q, key, m, scaling, columns, softcap, sinks) for q, m in zip(some, masks, strict=True)], 2
        )
    part = max(1, transient // (per_key + per_row * n_rows))
    rows = []
    for start in range(0, batch, part):
        here = slice(start, start + part)
        mask_here = mask if mask is None or len(mask) == 1 else mask[here]
        weights = _scores(query[here], key[here], mask_here, scaling, softcap)
        if sinks is None:
            weights = weights.softmax(-1)  # one pass, where a logarithm and its exponential take five
        else:
            log_sum = torch.logaddexp(weights.logsumexp(-1, keepdim=True), sinks.float()[:, None, None])
            weights.sub_(log_sum).exp_()
        rows.append(weights.gather(3, columns[here][:, None, None, :].expand(-1, n_heads, n_rows, -1)))
    return torch.cat(rows) if len(rows) > 1 else rows[0]


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, scaling: float, softcap: float | None) -> Tensor:
    """Float32 [B, H, R, S], before the softmax."""
    batch, n_heads, n_rows, dim = query.shape
    n_kv_heads, n_keys = key.shape[1:3]
    # Heads that share keys are stacked as more rows: the keys are never repeated.
    grouped = (query.float() * scaling).reshape(batch, n_kv_heads, n_heads // n_kv_heads * n_rows, dim)
    scores = (grouped @ key.float().transpose(-1, -2)).reshape(batch, n_heads, n_rows, n_keys)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        return scores
    return scores.masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else scores.add_(mask)


@dataclass
class _Layer:
    """What a layer has stashed: the queries of some steps, and for each its row of the mask and the keys it saw."""

    n_seen: int = 0  # keys so far, those that the cache has dropped included
    n_keys: int = 0  # that the newest call had
    call: Call | None = None  # the newest: its keys are those of the cache
    queries: Tensor | None = None  # [B, H, STASHED_STEPS, D]
    first_row: int = 0
    masks: list[Tensor | None] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)  # keys that each stashed query saw at most


class Watch:
    """Looks on while a model runs inside it: `with watch: model(...)`.

    `records` says which attention modules count, None for all.
    """

    def __init__(self, records: Callable[[nn.Module], bool] | None = None):
        self.records = records

    def __enter__(self) -> Self:
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)

    @torch.no_grad()
    def see(self, module: nn.Module, call: Call) -> None:
        """Called by the attention function, once for each layer and forward pass."""
        if self.records is None or self.records(module):
            self.record(int(module.layer_idx), call)  # type: ignore[arg-type]

    def record(self, index: int, call: Call) -> None:
        """What is kept of one call: `index` of the layer, and its tensors."""
        raise NotImplementedError

    def instead(self) -> Tensor | None:
        """What attention returns, [B, Q, H, D_v], where it is not to be computed."""
        return None


class FirstKeys(Watch):
    """The keys of the first layer that is called, [B, H_kv, S, D]: what each image token brings into the model."""

    keys: Tensor | None = None

    def record(self, index: int, call: Call) -> None:
        """Keeps the first call's keys."""
        if self.keys is None:
            self.keys = call.key


class AttentionCapture(Watch):
    """Collects maps while a model runs inside it: `with AttentionCapture(columns) as capture: model.generate(...)`.

    `columns` int64 [B, N]: the positions of the image's tokens among the keys. `rows` int64 [B, R]: the queries that
    are wanted of one forward pass; None takes the last query of every forward pass, as generation needs, from an empty
    cache on. `cross`: the modules that count attend to another sequence than their own, whose keys are all there from
    the start.
    """

    def __init__(
        self,
        columns: Tensor,
        selection: Selection = MEAN_OF_ALL,
        rows: Tensor | None = None,
        records: Callable[[nn.Module], bool] | None = None,
        cross: bool = False,
    ):
        super().__init__(records)
        self.columns, self.selection, self.rows, self.cross = columns, selection, rows, cross
        self._layers: dict[int, _Layer] = {}
        self._in_pass: set[int] = set()  # layers that were called in the present forward pass
        self._row = -1  # of the present forward pass
        self._pass_masks: dict[int, tuple[Tensor, Tensor]] = {}
        self._joined_masks: dict[tuple[Any, ...], Tensor] = {}
        self._chunk_rows = STASHED_STEPS if rows is None else rows.shape[1]
        self._chunks: list[dict[int, Tensor]] = []  # of so many rows each: layer (or -1, all of them) -> their maps
        self._finite: dict[int, Tensor] = {}

    def record(self, index: int, call: Call) -> None:
        """Takes note of the rows that one layer's call has of those that are wanted."""
        if index in self._in_pass or not self._in_pass:
            self._start_pass()
        self._in_pass.add(index)
        if self.selection.layers is not None and index not in self.selection.layers:
            return
        if self.rows is not None:
            self._record_rows(index, call)
        else:
            self._record_step(index, call)

    def _start_pass(self) -> None:
        self._in_pass.clear()
        self._pass_masks.clear()
        self._row += 1

    def _record_rows(self, index: int, call: Call) -> None:
        assert self.rows is not None
        rows = self.rows.to(call.query.device)
        n_heads, dim = call.query.shape[1], call.query.shape[3]
        query = call.query.gather(2, rows[:, None, :, None].expand(-1, n_heads, -1, dim))
        self._add(index, 0, self._weights(call, query, mask_of_rows(call, rows), self.columns))

    def _record_step(self, index: int, call: Call) -> None:
        layer = self._layers.setdefault(index, _Layer(first_row=self._row))
        n_keys = call.key.shape[2]
        self._check_step(layer, call)
        layer.n_keys = n_keys
        layer.n_seen = n_keys if self.cross else layer.n_seen + call.query.shape[2]
        n_dropped = max(0, layer.n_seen - n_keys)
        if n_dropped or (call.window and not self.cross):
            self._flush(index, layer)  # against the keys of the step before, which were all there
            columns = self.columns.to(call.key.device) - n_dropped
            mask = mask_of_rows(call, _last_row(call))
            weights = self._weights(call, call.query[:, :, -1:], mask, columns.clamp(min=0))
            self._add(index, self._row, weights.masked_fill((columns < 0)[:, None, None, :], 0.0))
            layer.first_row = self._row + 1
            return
        if len(layer.masks) == STASHED_STEPS:
            self._flush(index, layer)
        if layer.queries is None:
            batch, n_heads, _, dim = call.query.shape
            layer.queries = call.query.new_empty(batch, n_heads, STASHED_STEPS, dim)
        layer.queries[:, :, len(layer.masks)] = call.query[:, :, -1]
        layer.masks.append(self._shared_mask_row(call))
        layer.lengths.append(layer.n_seen)
        # Neither a prompt's queries are held nor what it saw.
        layer.call = replace(call, query=call.query.new_empty(0), mask=None, value=None, output=None)

    def _check_step(self, layer: _Layer, call: Call) -> None:
        """CaptureError unless `call` has the prompt's queries, or else one, and as many keys as such a step gives."""
        n_queries, n_keys = call.query.shape[2], call.key.shape[2]
        if not layer.n_seen:
            fits = self.cross or n_keys >= n_queries
        else:
            grown = n_keys == layer.n_keys + (not self.cross)
            fits = n_queries == 1 and (grown or n_keys == layer.n_keys or bool(call.window))
        if not fits:
            raise CaptureError(
                f"A step of generation has {n_queries} queries and {n_keys} keys where there were {layer.n_keys}: it "
                "does not write one token at a time with a cache, so its maps cannot be captured. Look at the model's "
                "generation settings (use_cache and the like)."
            )

    def _shared_mask_row(self, call: Call) -> Tensor | None:
        """The mask of the last query; layers that share a mask share its row, so that they can be joined once."""
        if call.mask is None:
            return None
        if id(call.mask) not in self._pass_masks:
            row = mask_of_rows(call, _last_row(call))
            assert row is not None
            self._pass_masks[id(call.mask)] = (call.mask, row)  # the mask too: its id is its own while it lives
        return self._pass_masks[id(call.mask)][1]

    def _flush(self, index: int, layer: _Layer) -> None:
        """Compute the rows of the stashed queries against the newest keys."""
        if not layer.masks:
            return
        assert layer.call is not None and layer.queries is not None
        mask = self._joined_mask(layer)
        query = layer.queries[:, :, : len(layer.masks)]
        self._add(index, layer.first_row, self._weights(layer.call, query, mask, self.columns))
        layer.first_row += len(layer.masks)
        layer.masks, layer.lengths, layer.call = [], [], None

    def _joined_mask(self, layer: _Layer) -> Tensor:
        """[B, 1, R, S] of a layer's stashed rows; a row saw none of the keys that came after it."""
        assert layer.call is not None
        n_keys = layer.call.key.shape[2]
        device = layer.call.key.device
        shared = (device, n_keys, *layer.lengths, *map(id, layer.masks))
        if shared not in self._joined_masks:
            self._joined_masks = {shared: _join_masks(layer.masks, layer.lengths, n_keys, device)}
        return self._joined_masks[shared]

    def _weights(self, call: Call, query: Tensor, mask: Tensor | None, columns: Tensor) -> Tensor:
        columns = columns.to(call.key.device)
        return attention_rows(query, call.key, mask, call.scaling, columns, call.softcap, call.sinks)

    def _add(self, index: int, first_row: int, weights: Tensor) -> None:
        """Put `weights` [B, H, R, N] of rows `first_row` and following where they belong, reduced as wanted."""
        kept = self.reduced(index, weights)
        slot = -1 if self.selection.keep == "mean" else index
        done = 0
        while done < kept.shape[-2]:
            chunk, offset = divmod(first_row + done, self._chunk_rows)
            while len(self._chunks) <= chunk:
                self._chunks.append({})
            if slot not in self._chunks[chunk]:
                shape = (*kept.shape[:-2], self._chunk_rows, kept.shape[-1])
                self._chunks[chunk][slot] = kept.new_zeros(shape)
            total = self._chunks[chunk][slot]
            n = min(kept.shape[-2] - done, self._chunk_rows - offset)
            total[..., offset : offset + n, :] += kept[..., done : done + n, :].to(total.device)
            done += n

    def reduced(self, index: int, weights: Tensor) -> Tensor:
        """`weights` [B, H, R, N] of a layer as they are kept: of the heads that are wanted, or their mean [B, R, N]."""
        heads = self.selection.heads
        if heads is not None:
            weights = weights[:, [h % weights.shape[1] for h in heads]]
        kept = weights if self.selection.keep == "heads" else weights.mean(1)
        finite = kept.isfinite().all()
        self._finite[index] = self._finite[index] & finite if index in self._finite else finite
        return kept

    @property
    def n_rows(self) -> int:
        """Rows of each image: those that were wanted, or one for each forward pass so far."""
        return self._row + 1 if self.rows is None else self.rows.shape[1]

    @property
    def seen(self) -> list[int]:
        """The layers whose attention was looked at."""
        return sorted(self._finite)

    @torch.inference_mode()
    def maps(self) -> Tensor:
        """Float32 on the CPU: [B, rows, N], or [B, layers, rows, N], or [B, layers, heads, rows, N], as kept.

        Raises CaptureError where a layer gave NaN or infinity, and where a wanted layer was never called.
        """
        for index, layer in self._layers.items():
            self._flush(index, layer)
        self.check()
        joined = [
            torch.cat([chunk[slot].to("cpu") for chunk in self._chunks], dim=-2)[..., : self.n_rows, :]
            for slot in sorted(self._chunks[0])
        ]
        return joined[0] / len(self._finite) if self.selection.keep == "mean" else torch.stack(joined, dim=1)

    @torch.inference_mode()
    def so_far(self) -> Tensor:
        """`maps` of the rows until now, between two forward passes. What is stashed stays so: in the end the rows are
        computed together as if nobody had looked, since a product of fewer rows may round in another way."""
        other = copy(self)
        other._layers = {index: replace(layer) for index, layer in self._layers.items()}
        other._chunks = [{slot: rows.clone() for slot, rows in chunk.items()} for chunk in self._chunks]
        other._finite, other._joined_masks = dict(self._finite), {}
        return other.maps()

    def check(self) -> None:
        """CaptureError where a layer gave NaN or infinity, and where a wanted layer was never called."""
        broken = sorted(index for index, finite in self._finite.items() if not finite)
        if broken:
            raise CaptureError(
                f"The attention of layer {broken[0]} is not a finite number. Load the model in another precision: "
                "--dtype bfloat16 or --dtype float32."
            )
        missing = set(self.selection.layers or ()) - set(self._finite)
        if missing and self._finite:
            raise CaptureError(
                f"Layer {min(missing)} has no attention that can be captured. Those that have: "
                f"{', '.join(map(str, sorted(self._in_pass)))}."
            )
        if not self._finite:
            raise CaptureError("No attention layer was seen: the model does not run transformers' attention interface.")


def mask_of_rows(call: Call, rows: Tensor) -> Tensor | None:
    """The mask of some queries, [B, 1 or H, R, S]; `rows` int64 [B, R], positions in the call's queries."""
    n_queries, n_keys = call.query.shape[2], call.key.shape[2]
    if call.mask is not None and call.mask.ndim == 4:
        mask = call.mask[..., :n_keys].expand(len(rows), -1, -1, -1)
        return mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, n_keys))
    if call.mask is None and (n_queries == 1 or not call.is_causal) and not call.window:
        return None
    # No mask: causal from the top left, so that unwritten keys of a static cache do not count. A flash kernel's
    # padding mask [B, S] stands beside causality, and beside the window, from the bottom right.
    offset = 0 if call.mask is None and n_queries > 1 else n_keys - n_queries
    position = (rows + offset)[:, None, :, None]
    key_position = torch.arange(n_keys, device=rows.device)
    visible = key_position <= position if call.is_causal else torch.ones_like(key_position <= position)
    if call.window:
        visible = visible & (key_position > position - call.window)
    if call.mask is not None:
        visible = visible & call.mask[:, None, None, :n_keys].bool()
    return visible


def _last_row(call: Call) -> Tensor:
    return torch.full((len(call.query), 1), call.query.shape[2] - 1, device=call.query.device)


def _join_masks(masks: Sequence[Tensor | None], lengths: Sequence[int], n_keys: int, device: torch.device) -> Tensor:
    """[B or 1, 1 or H, R, n_keys] from each row's mask, which covers the keys of its time and hides unwritten ones."""
    written = (torch.arange(n_keys, device=device) < torch.tensor(lengths, device=device)[:, None])[None, None]
    if all(mask is None for mask in masks):
        return written
    rows = [written[:, :, i : i + 1] if mask is None else mask for i, mask in enumerate(masks)]
    if any(row.dtype != torch.bool for row in rows):
        rows = [torch.zeros_like(r, dtype=torch.float32).masked_fill_(~r, -torch.inf) if r.dtype == torch.bool else r
                for r in rows]  # fmt: skip
    batch = max(len(row) for row in rows)
    rows = [
        F.pad(r, (0, n_keys - r.shape[-1]), value=False if r.dtype == torch.bool else -torch.inf).expand(
            batch, -1, -1, -1
        )
        for r in rows
    ]
    return torch.cat(rows, dim=2)


def _plain_attention(call: Call, value: Tensor) -> Tensor:
    """softmax(scores) V for what sdpa cannot compute: soft-capped scores and attention sinks. [B, Q, H, D]."""
    rows = torch.arange(call.query.shape[2], device=call.query.device).expand(len(call.query), -1)
    scores = _scores(call.query, call.key, mask_of_rows(call, rows), call.scaling, call.softcap)
    log_sum = scores.logsumexp(-1, keepdim=True)
    if call.sinks is not None:
        log_sum = torch.logaddexp(log_sum, call.sinks.float()[:, None, None])
    # A padding token that sees nothing brings nothing, as in sdpa; NaN would spread to those that do not see it.
    log_sum = log_sum.masked_fill(log_sum == -torch.inf, 0.0)
    weights = (scores - log_sum).exp().to(value.dtype)
    batch, n_heads, n_queries, n_keys = weights.shape
    grouped = weights.reshape(batch, value.shape[1], -1, n_keys)
    return (grouped @ value).reshape(batch, n_heads, n_queries, -1).transpose(1, 2).contiguous()


def _capturing(base: str) -> Callable[..., tuple[Tensor, None]]:
    """The attention function that returns what `base` returns and lets the active capture look on."""
    attention = ALL_ATTENTION_FUNCTIONS[base]
    knows_softcap = "flash" in base

    def capturing_attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, None]:
        softcap, sinks = kwargs.get("softcap"), kwargs.get("s_aux")
        own = (softcap is not None or sinks is not None) and not knows_softcap
        capture = _active.get()
        if capture is not None and (given := capture.instead()) is not None:
            return given, None
        if capture is None and not own:
            return attention(module, query, key, value, attention_mask, **kwargs)[0], None
        if kwargs.get("position_bias") is not None:
            raise CaptureError("Attention with a learned position bias is not captured: this model is not supported.")
        is_causal = kwargs.get("is_causal")
        call = Call(
            query,
            key,
            attention_mask,
            kwargs.get("scaling") or query.shape[-1] ** -0.5,
            softcap,
            sinks,
            kwargs.get("sliding_window"),
            bool(getattr(module, "is_causal", True) if is_causal is None else is_causal),
        )
        if own:
            output = _plain_attention(call, value)
        else:
            output = attention(module, query, key, value, attention_mask, **kwargs)[0]
        if capture is not None:
            capture.see(module, replace(call, value=value, output=output))
        return output, None

    return capturing_attention


def _registered(base: str) -> str:
    """The name of the attention that returns what `base` returns while a watch looks on."""
    # Not "sdpa" in the name: transformers then refuses models whose layers soft-cap, or have sinks.
    name = "aas_scaled_dot_product" if base == "sdpa" else f"aas_{base}"
    AttentionInterface.register(name, _capturing(base))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base])
    return name


def _configs(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """`config` and all below it."""
    below = [getattr(config, key, None) for key in config.sub_configs]
    return [config, *(deeper for one in below if one is not None for deeper in _configs(one))]


@contextmanager
def attention_of(model: PreTrainedModel, part: str, implementation: str | None = None) -> Iterator[None]:
    """One part of `model` runs through `implementation`, or through its own with a watch looking on; the others, the
    vision encoder, keep theirs, and afterwards all have what they had.

    `part`: the key of the part in `config.sub_configs`, empty where the model's own config is that of its text part.
    The modules look up the implementation in their config whenever they are called: nothing else is touched.
    """
    configs = _configs(getattr(model.config, part)) if part else [model.config]
    former = [config._attn_implementation for config in configs]
    # Eager would hold the whole matrix: sdpa goes instead of it, and soft-capping is computed here.
    name = implementation or _registered("sdpa" if former[0] in (None, "eager") else former[0])
    try:
        for config in configs:
            config._attn_implementation = {"": name}  # of this config alone
        yield
    finally:
        for config, own in zip(configs, former, strict=True):
            config._attn_implementation = {"": own}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module of `model` in evaluation mode, afterwards as it was; no gradients."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        # Not inference_mode: a buffer that a model computes once, as it goes, could never be trained with again.
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
