"""A LoRA in the authors' release format, merged into the weights of its base."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflmm.files import ADAPTER_FILES, check_whole, need_keys, read_json, read_weights


def with_lora(weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """`weights` of the base with a LoRA added, W + scale * B A, computed in float32 and kept in `dtype`; and with what
    was trained beside it (the projector)."""
    settings = _settings(folder)
    weights = weights | {_plain_name(k): v for k, v in read_weights(folder, ("non_lora_trainables.bin",)).items()}
    for name, (a, b) in _lora_pairs(folder, settings["target_modules"], weights).items():
        weight, rank = weights[name], len(a)
        if (len(b), a.shape[1]) != weight.shape or rank != b.shape[1]:
            raise ValueError(
                f"The LoRA {folder} does not fit its base: {name} is {list(weight.shape)}, the LoRA's "
                f"{[len(b), a.shape[1]]}. Name the LLM that it was trained on with --base."
            )
        scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
        weights[name] = (weight.float() + scale * (b.float() @ a.float())).to(dtype)
    return weights


def _settings(folder: Path) -> dict[str, Any]:
    """Of the LoRA. ValueError for what changes its arithmetic."""
    path = folder / "adapter_config.json"
    settings = read_json(path)
    need_keys(path, settings, ("target_modules", "lora_alpha"))
    unknown = [key for key in ("use_dora", "alpha_pattern", "modules_to_save", "fan_in_fan_out") if settings.get(key)]
    if settings.get("bias", "none") != "none":
        unknown.append("bias")
    if unknown:
        raise ValueError(f"{path}: {', '.join(unknown)} is not supported.")
    return settings


def _lora_pairs(folder: Path, modules: list[str] | str, weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The two halves, A and B, that belong to each weight; ValueError where one of them is without the other."""
    pairs: dict[str, dict[str, Tensor]] = {}
    left_over = []
    for key, half in read_weights(folder, ADAPTER_FILES).items():
        found = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", _plain_name(key))
        name = f"{found[1]}.weight" if found else ""
        if found and name in weights:
            pairs.setdefault(name, {})[found[2]] = half
        else:
            left_over.append(key)
    missing = sorted(name for name, pair in pairs.items() if len(pair) < 2)
    if isinstance(modules, list):  # otherwise a pattern, which only its layers tell
        wanted = {k for k in weights if k.startswith("model.layers.") and _is_one_of(k, modules)}
        missing = sorted({*missing, *(wanted - pairs.keys())})
    check_whole(f"The LoRA {folder}", missing, left_over)
    return {name: (pair["A"], pair["B"]) for name, pair in pairs.items()}


def _plain_name(name: str) -> str:
    """Without what peft puts in front of a model's own names."""
    return re.sub(r"^(base_model\.model\.|base_model\.)?(model\.(?=model\.|lm_head\.))?", "", name)


def _is_one_of(name: str, modules: list[str]) -> bool:
    return any(name.removesuffix(".weight").endswith(f".{module}") for module in modules)
