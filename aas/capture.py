"""Attention to the image, captured while a model runs with its own fast attention.

One attention function, registered with transformers, returns exactly what `sdpa` returns and computes beside it the
few rows and columns that are wanted: `softmax(q kT * scale + mask)` over **all** keys, then the image columns, in
float32, reduced over layers and heads at once. No layers x heads x S x S tensor ever exists.

Row t of a map belongs to answer token t. With `alignment="predict"` it is the attention of the query that predicts the
token (the previous position); with `"self"`, of the query whose input is the token.
"""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "aas_capture"
Alignment = Literal["predict", "self"]

_active: ContextVar["AttentionCapture | None"] = ContextVar("aas_capture", default=None)


class CaptureError(RuntimeError):
    """The model's attention cannot be captured exactly; the message says why and what to do."""


def attention_rows(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float,
    rows: Tensor,
    columns: Tensor,
) -> Tensor:
    """The chosen entries of the attention matrix, float32 [B, H, R, N].

    `query` [B, H, Q, D] and `key` [B, H_kv, S, D] as they go into attention (after rotary embedding), H a multiple of
    H_kv; `mask` as sdpa takes it ([B, 1, Q, S], bool or additive), None for causal from the top left (all keys when
    Q = 1); `rows` int64 [B, R] and `columns` int64 [B, N] are positions in Q and S.
    """
    batch, n_heads, n_queries, dim = query.shape
    n_kv_heads, n_keys = key.shape[1:3]
    n_rows = rows.shape[1]
    wanted = query.gather(2, rows[:, None, :, None].expand(-1, n_heads, -1, dim)).float() * scaling
    # Heads that share keys are stacked as more rows: the keys are never repeated.
    grouped = wanted.reshape(batch, n_kv_heads, n_heads // n_kv_heads * n_rows, dim)
    scores = (grouped @ key.float().transpose(-1, -2)).reshape(batch, n_heads, n_rows, n_keys)
    if mask is not None:
        visible = mask[..., :n_keys].expand(batch, -1, -1, -1)
        visible = visible.gather(2, rows[:, None, :, None].expand(-1, visible.shape[1], -1, n_keys))
        scores = scores.masked_fill(~visible, -torch.inf) if visible.dtype == torch.bool else scores + visible
    elif n_queries > 1:
        future = torch.arange(n_keys, device=key.device) > rows[..., None]
        scores = scores.masked_fill(future[:, None], -torch.inf)
    log_sum = scores.logsumexp(-1, keepdim=True)
    chosen = scores.gather(3, columns[:, None, None, :].expand(-1, n_heads, n_rows, -1))
    return (chosen - log_sum).exp()


class AttentionCapture:
    """Collects maps while a model runs inside it: `with AttentionCapture(columns) as capture: model.generate(...)`.

    `columns` int64 [B, N]: the positions of the image's tokens. `rows` int64 [B, R]: the queries that are wanted of one
    forward pass; None takes the last query of every forward pass, as generation needs. `heads`: indices of the heads to
    average (negative from the end), None for all.
    """

    def __init__(self, columns: Tensor, rows: Tensor | None = None, heads: Sequence[int] | None = None):
        self.columns, self.rows, self.heads = columns, rows, heads
        self._sums: list[Tensor] = []  # one [B, R, N] per forward pass, summed over layers
        self._n_layers: list[int] = []
        self._last_layer: int | None = None
        self._finite: dict[int, Tensor] = {}

    def __enter__(self) -> "AttentionCapture":
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)

    def record(self, module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, scaling: float | None) -> None:
        """Add one layer's rows; called by the attention function."""
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        window = getattr(module, "sliding_window", None)
        if window and key.shape[2] >= window:
            raise CaptureError(
                f"Layer {layer} attends through a sliding window of {window}, which is not captured yet."
            )
        rows = self.rows
        if rows is None:
            rows = torch.full((len(query), 1), query.shape[2] - 1, device=query.device)
        with torch.no_grad():
            weights = attention_rows(
                query, key, mask, scaling or query.shape[-1] ** -0.5, rows.to(query.device), self.columns.to(key.device)
            )
            if self.heads is not None:
                weights = weights[:, [h % weights.shape[1] for h in self.heads]]
            layer_map = weights.mean(1)
        if self._last_layer is None or layer <= self._last_layer:
            self._sums.append(torch.zeros_like(layer_map))
            self._n_layers.append(0)
        self._last_layer = layer
        self._sums[-1] += layer_map
        self._n_layers[-1] += 1
        self._finite[layer] = self._finite.get(layer, torch.tensor(True)) & layer_map.isfinite().all().cpu()

    def maps(self) -> Tensor:
        """Mean over layers and heads, float32 [B, rows, N] on the CPU; raises where a layer gave NaN or infinity."""
        broken = [layer for layer, finite in self._finite.items() if not finite]
        if broken:
            raise CaptureError(
                f"The attention of layer {broken[0]} is not a finite number. Load the model in bfloat16 or float32."
            )
        if not self._sums:
            raise CaptureError("No attention layer was seen: the model does not run transformers' attention interface.")
        steps = [total / n for total, n in zip(self._sums, self._n_layers, strict=True)]
        return torch.cat(steps, dim=1).cpu()


def _capturing_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    capture = _active.get()
    if capture is not None:
        if kwargs.get("s_aux") is not None:
            raise CaptureError("Attention sinks are not captured yet.")
        capture.record(module, query, key, attention_mask, kwargs.get("scaling"))
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return output, None


AttentionInterface.register(NAME, _capturing_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def prepare(model: PreTrainedModel) -> None:
    """Let the language part of `model` run through the capturing attention; the vision part keeps its own."""
    model.set_attn_implementation({"text_config": NAME})


def generate(
    model: PreTrainedModel,
    inputs: dict[str, Tensor],
    columns: Tensor,
    heads: Sequence[int] | None = None,
    **generation: Any,
) -> tuple[Tensor, Tensor]:
    """Generate and capture: token ids int64 [B, T], maps float32 [B, T, N]; both on the CPU.

    `inputs` as the processor gives them, prompts padded on the left. What follows a sample's end token belongs to
    nobody: the caller cuts it.
    """
    with torch.inference_mode(), AttentionCapture(columns, heads=heads) as capture:
        sequences = model.generate(**inputs, **generation)
    token_ids = sequences[:, inputs["input_ids"].shape[1] :].cpu()
    maps = capture.maps()
    assert maps.shape[1] == token_ids.shape[1], "one forward pass per generated token"
    return token_ids, maps


def replay(
    model: PreTrainedModel,
    inputs: dict[str, Tensor],
    answer_ids: Tensor,
    columns: Tensor,
    heads: Sequence[int] | None = None,
    alignment: Alignment = "predict",
) -> Tensor:
    """Capture with the answer given, in one forward pass: maps float32 [B, T, N] on the CPU.

    `inputs` is the prompt alone; `answer_ids` int64 [B, T] follow it.
    """
    prompt_ids = inputs["input_ids"]
    n_prompt, n_answer = prompt_ids.shape[1], answer_ids.shape[1]
    answer_ids = answer_ids.to(prompt_ids.device)
    whole = dict(inputs, input_ids=torch.cat([prompt_ids, answer_ids], dim=1))
    if "attention_mask" in inputs:
        ones = torch.ones_like(answer_ids)
        whole["attention_mask"] = torch.cat([inputs["attention_mask"], ones], dim=1)
    first = n_prompt - (alignment == "predict")
    rows = (first + torch.arange(n_answer)).expand(len(prompt_ids), -1)
    with torch.inference_mode(), AttentionCapture(columns, rows, heads) as capture:
        model(**whole, use_cache=False, logits_to_keep=1)
    return capture.maps()
