"""A LoRA in the authors' release format, merged into the weights of its base."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from difflmm.files import ADAPTER_FILES, check_whole, read_json, read_weights

# Of peft's settings those that are read here, and those that say nothing of the weights. Any other is refused if on.
DEFAULTS = {"peft_type": "LORA", "lora_alpha": 8, "init_lora_weights": True, "bias": "none"}  # peft's own
READ = {*DEFAULTS, "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "r", "use_rslora",
        "rank_pattern", "alpha_pattern"}  # fmt: skip
IDLE = {"auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
        "lora_dropout", "qalora_group_size", "megatron_core", "eva_config"}  # fmt: skip
BASE_AS_IT_WAS = (True, False, "gaussian", "orthogonal", "eva", "mica")  # ways to begin that leave it so
LAYER = re.compile(r"model\.layers\.(\d+)\.")
HOW_ELSE = "merge it where it was trained (peft's merge_and_unload), and name the whole without --base"


def with_lora(weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """`weights` of the base with a LoRA added, W + scale * B A, computed in float32 and kept in `dtype`; and with what
    was trained beside it (the projector)."""
    settings = _settings(folder)
    weights = weights | {_plain_name(k): v for k, v in read_weights(folder, ("non_lora_trainables.bin",)).items()}
    for name, (a, b) in _lora_pairs(folder, settings, weights).items():
        weight, rank = weights[name], len(a)
        if (len(b), a.shape[1]) != weight.shape or rank != b.shape[1]:
            raise ValueError(
                f"The LoRA {folder} does not fit its base: {name} is {list(weight.shape)}, the LoRA's "
                f"{[len(b), a.shape[1]]}. Name the LLM that it was trained on with --base."
            )
        weights[name] = (weight.float() + _scale(folder, settings, name, rank) * (b.float() @ a.float())).to(dtype)
    return weights


def _settings(folder: Path) -> dict[str, Any]:
    """Of the LoRA, with peft's defaults. ValueError for what changes its arithmetic."""
    path = folder / "adapter_config.json"
    given = read_json(path)
    settings = DEFAULTS | {key: value for key, value in given.items() if value is not None}
    began = settings["init_lora_weights"]
    if began not in BASE_AS_IT_WAS:
        raise ValueError(
            f"{path}: the LoRA was begun with {began}, which changed its base. Save it with peft's "
            f"save_pretrained(path_initial_model_for_weight_conversion=...), or {HOW_ELSE}."
        )
    unknown = sorted(key for key, value in settings.items() if key not in READ | IDLE and value)
    unknown += [f"{key} {settings[key]}" for key in ("peft_type", "bias") if settings[key] != DEFAULTS[key]]
    if unknown:
        raise ValueError(f"{path}: {', '.join(unknown)} is not supported: {HOW_ELSE}.")
    _check_values(path, settings)
    return settings


def _check_values(path: Path, settings: dict[str, Any]) -> None:
    alphas = [settings["lora_alpha"], *(settings.get("alpha_pattern") or {}).values()]
    for alpha in alphas:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise ValueError(f"{path}: lora_alpha {alpha!r} is not a number.")
    names = [settings.get(key) for key in ("target_modules", "exclude_modules")]
    for pattern in [*names, *(settings.get("rank_pattern") or ()), *(settings.get("alpha_pattern") or ())]:
        try:
            re.compile(pattern if isinstance(pattern, str) else "")
        except re.error as error:
            raise ValueError(f"{path}: {pattern!r} is not a pattern ({error}).") from error


def _scale(folder: Path, settings: dict[str, Any], name: str, rank: int) -> float:
    """Of the LoRA on a weight. ValueError where its rank is another than the settings say."""
    said = _of_pattern(settings.get("rank_pattern"), name, settings.get("r", rank))
    if said != rank:
        raise ValueError(f"The LoRA {folder} is not what it says: its settings give {name} rank {said}, it has {rank}.")
    return _of_pattern(settings.get("alpha_pattern"), name, settings["lora_alpha"]) / (
        rank**0.5 if settings.get("use_rslora") else rank
    )


def _of_pattern(patterns: dict[str, Any] | None, name: str, default: Any) -> Any:
    """As peft finds the value of a layer: the first pattern that its name ends with."""
    module = name.removesuffix(".weight")
    return next((value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module)), default)


def _lora_pairs(folder: Path, settings: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
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
    missing = {name for name, pair in pairs.items() if len(pair) < 2} | (_wanted(settings, weights) - pairs.keys())
    check_whole(f"The LoRA {folder}", sorted(missing), left_over)
    return {name: (pair["A"], pair["B"]) for name, pair in pairs.items()}


def _wanted(settings: dict[str, Any], weights: dict[str, Tensor]) -> set[str]:
    """The weights of the LLM's layers that the settings put a LoRA on; none where they leave it open."""
    modules, excluded = settings.get("target_modules") or [], settings.get("exclude_modules") or []
    only = settings.get("layers_to_transform")
    layers = {only} if isinstance(only, int) else set(only or ())
    wanted = set()
    for name, weight in weights.items():
        layer, module = LAYER.match(name), name.removesuffix(".weight")
        if layer is None or (layers and int(layer[1]) not in layers) or _is_one_of(module, excluded):
            continue
        if weight.ndim == 2 if modules == "all-linear" else _is_one_of(module, modules):
            wanted.add(name)
    return wanted


def _is_one_of(module: str, names: list[str] | str) -> bool:
    """As peft has it: how names end, or a pattern of whole ones."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _plain_name(name: str) -> str:
    """Without what peft and torch's wrappers put in front of a model's own names; the LLM's as LLaMA has them."""
    name = re.sub(
        r"^(module\.)*(base_model\.model\.|base_model\.)?(module\.)*(model\.(?=model\.|lm_head\.))?", "", name
    )
    return re.sub(r"^(model\.language_model\.|language_model\.model\.)(?=layers\.)", "model.", name)
