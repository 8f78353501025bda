"""What a model is made of: parameters, memory, grids."""

from typing import Any

import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, PreTrainedConfig

MEBIBYTE = 2**20
ENCODER_FIELDS = ("timestep", "up_block", "ensemble_size", "concat_clip", "implicit_caption", "positions")


def describe(model: LlavaForConditionalGeneration) -> dict[str, Any]:
    """Of each part its parameters and their bytes; the image's grid in pixels and tokens; the memory of its keys and
    values in the language model. JSON can hold it."""
    config = model.config
    tower, text = config.vision_config, config.text_config
    is_diffusion = config.model_type == "difflmm"
    side = tower.resolution if is_diffusion else tower.image_size
    grid_side = side // tower.patch_size
    return {
        "model_type": config.model_type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "parts": {name: _size(part) for name, part in _parts(model).items()} | {"all": _size(model)},
        "image_px": [side, side],
        "grid_hw": [grid_side, grid_side],
        "patch_px": tower.patch_size,
        "image_tokens": grid_side**2,
        "image_cache_bytes": _cache_bytes_per_token(text, model.dtype) * grid_side**2,
        "encoder": {name: getattr(tower, name) for name in ENCODER_FIELDS} if is_diffusion else None,
        "text": _text(text),
    }


def _cache_bytes_per_token(text: PreTrainedConfig, dtype: torch.dtype) -> int:
    """Of keys and values, in all layers."""
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    n_kv_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return 2 * text.num_hidden_layers * n_kv_heads * head_dim * torch.finfo(dtype).bits // 8


def _text(text: PreTrainedConfig) -> dict[str, Any]:
    return {
        "model_type": text.model_type,
        "layers": text.num_hidden_layers,
        "heads": text.num_attention_heads,
        "width": text.hidden_size,
        "context": getattr(text, "max_position_embeddings", None),
    }


def _parts(model: LlavaForConditionalGeneration) -> dict[str, nn.Module]:
    inside = model.model
    tower = {f"vision_tower.{name}": part for name, part in inside.vision_tower.named_children()}
    if model.config.model_type != "difflmm":
        tower = {"vision_tower": inside.vision_tower}
    text = {"language_model": inside.language_model, "lm_head": model.lm_head}
    return tower | {"multi_modal_projector": inside.multi_modal_projector} | text


def _size(module: nn.Module) -> dict[str, int]:
    parameters = list(module.parameters())
    return {"parameters": sum(p.numel() for p in parameters), "bytes": sum(p.nbytes for p in parameters)}


def as_text(found: dict[str, Any]) -> str:
    """What `describe` found, for people."""
    lines = [f"{found['model_type']} in {found['dtype']}", ""]
    for name, size in found["parts"].items():
        lines.append(f"  {name:<26}{size['parameters']:>15,} parameters {size['bytes'] / MEBIBYTE:>10,.1f} MiB")
    (height, width), text = found["grid_hw"], found["text"]
    cache = found["image_cache_bytes"] / MEBIBYTE
    lines += [
        "",
        f"  image    {found['image_px'][0]} x {found['image_px'][1]} pixels, {height} x {width} tokens of "
        f"{found['patch_px']} pixels; {cache:,.1f} MiB of keys and values",
        f"  text     {text['model_type']}, {text['layers']} layers of {text['heads']} heads, {text['width']} wide, "
        f"context {text['context']}",
    ]
    if found["encoder"]:
        lines.append("  encoder  " + ", ".join(f"{name} {value}" for name, value in found["encoder"].items()))
    return "\n".join(lines)
