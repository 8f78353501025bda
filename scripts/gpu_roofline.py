"""The least that a GPU has to do for a batch, and what it could do at best.

A multiply and an add are two operations (FLOP). N: the weights of all linear layers (and convolutions) of a part, each
used once for a token; L layers of H heads of d channels, H_kv of them with keys and values of their own; a batch of B
images with S tokens of prompt each, and an answer of T tokens:

    prefill   B (2 N S + 2 L H d S^2 + 2 V D)        scores and sums of values, half of the square being hidden
    step      B (2 N + 4 L H d s + 2 V D)            s: tokens until then, S + T / 2 on average
    step      b (N + V D) + B 2 b L H_kv d s bytes   weights read once, keys and values read once, b bytes a number
    eyes      2 N P + 4 L H d P w                    P patches, each attending to w of them: its window, or all

Nothing that capture adds is counted: it is no part of the least. Not counted either: norms, activations, embeddings,
the few scores of SAM's relative positions, and what is computed for padding.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from aas.lmms.base import LMM

PREFILL_SHARE = 0.6  # of the FLOP/s on a data sheet: what large products reach (reference: 8.4 TFLOP in 14 ms)
# name in torch's name of the device -> FLOP/s in bfloat16 without sparsity, bytes/s, by NVIDIA's data sheets
DATA_SHEETS = {"H200": (989e12, 4.8e12), "H100": (989e12, 3.35e12), "A100": (312e12, 2.04e12)}


@dataclass(frozen=True)
class Peaks:
    """What a device can do: operations and bytes a second; `source` says who says so."""

    flops: float
    bandwidth: float
    source: str


@dataclass(frozen=True)
class Least:
    """Operations of the prefill with the eyes, and operations and bytes of a mean step, of a batch."""

    prefill_flops: float
    step_flops: float
    step_bytes: float

    def seconds(self, peaks: Peaks, n_new: int) -> float:
        """At the roofline: the prefill at `PREFILL_SHARE` of all operations, each step by the slower of both."""
        step = max(self.step_bytes / peaks.bandwidth, self.step_flops / peaks.flops)
        return self.prefill_flops / (PREFILL_SHARE * peaks.flops) + n_new * step


def n_weights(*parts: nn.Module) -> int:
    """Of all linear layers and convolutions in `parts`."""
    layers = (layer for part in parts for layer in part.modules())
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d | nn.Conv3d))


def least_of(lmm: LMM, inputs: dict[str, torch.Tensor], n_new: int) -> Least:
    """For a batch as `LMM.collated` makes it."""
    batch, n_prompt = inputs["input_ids"].shape
    text, body = lmm.text_config, lmm.model.model.language_model
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    attended = text.num_hidden_layers * text.num_attention_heads * head_dim
    kept = text.num_hidden_layers * text.num_key_value_heads * head_dim
    linear, head = n_weights(body), lmm.model.lm_head.weight.numel()
    so_far = n_prompt + n_new / 2
    size = lmm.model.lm_head.weight.element_size()
    return Least(
        batch * (2 * linear * n_prompt + 2 * attended * n_prompt**2 + 2 * head) + eyes_flops(lmm, inputs),
        batch * (2 * (linear + head) + 4 * attended * so_far),
        size * (linear + head) + batch * 2 * size * kept * so_far,
    )


def eyes_flops(lmm: LMM, inputs: dict[str, torch.Tensor]) -> float:
    """Of the image encoder and what leads from it to the words."""
    model, vision = lmm.model.model, lmm.model.config.vision_config
    if "image_grid_thw" in inputs:  # Qwen: windows of so many patches; the merger sees four of them as one
        n, window = math.prod(inputs["pixel_values"].shape[:-1]), (vision.window_size // vision.patch_size) ** 2
        per_image = n / len(inputs["image_grid_thw"])
        full = len(vision.fullatt_block_indexes)
        scores = 4 * n * vision.hidden_size * (full * per_image + (vision.depth - full) * min(window, per_image))
        eyes, merger = n_weights(model.visual), n_weights(model.visual.merger)
        return 2 * n * (eyes - merger + merger / vision.spatial_merge_size**2) + scores
    n_tiles = math.prod(inputs["pixel_values"].shape[:-3])
    n = (vision.image_size // vision.patch_size) ** 2
    scores = 4 * (n + 1) ** 2 * vision.hidden_size * vision.num_hidden_layers  # one token more: the class's
    projector = 2 * n * n_weights(model.multi_modal_projector)
    return n_tiles * (2 * (n + 1) * n_weights(model.vision_tower) + projector + scores)


def sam_flops(config: Any, encoder: nn.Module) -> float:
    """Of the image encoder of a SamModel for one photograph; `config`: its vision config."""
    side = config.image_size // config.patch_size
    n, n_global = side**2, len(config.global_attn_indexes)
    windows = (config.num_hidden_layers - n_global) * min(config.window_size, side) ** 2
    return 2 * n * n_weights(encoder) + 4 * n * config.hidden_size * (n_global * n + windows)


def peaks_of(device: str) -> Peaks:
    """Of the device's data sheet, where it is known here; otherwise as measured."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    for known, (flops, bandwidth) in DATA_SHEETS.items():
        if known in name:
            return Peaks(flops, bandwidth, f"data sheet of {known}")
    return measured_peaks(device)


def measured_peaks(device: str) -> Peaks:
    """The best of a few products of large matrices, and of a few copies, which read and write."""
    on_gpu = device.startswith("cuda")
    side, n_bytes = (8192, 2**30) if on_gpu else (512, 2**24)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)
    x = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    y = torch.empty_like(x)
    flops = 2 * side**3 / _best(lambda: a @ a, device)
    return Peaks(flops, 2 * n_bytes / _best(lambda: y.copy_(x), device), "measured")


def _best(call: Callable[[], object], device: str) -> float:
    return min(seconds(call, device) for _ in range(6))


def seconds(call: Callable[[], object], device: str) -> float:
    """Of one call, until the device has done it."""
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
