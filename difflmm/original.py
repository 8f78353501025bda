"""The authors' format (`model_type: llava_llama`), whole or as a LoRA over its base LLM.

Of it both LLaVA-1.5, which becomes transformers' own LLaVA, and DiffLMM are read.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.utils import GENERATION_CONFIG_NAME

from difflmm.assembly import TEXT_NAMES, Parts, assembled, renamed
from difflmm.files import local_folder, read_json, read_weights
from difflmm.lora import with_lora
from difflmm.processor import tokenizer_with_image
from difflmm.towers import FEATURE_LAYER, Tower, clip_tower, diffusion_tower_of

# How names begin: in our models, and in the authors' checkpoints.
LLAVA_NAMES = TEXT_NAMES | {
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
}
DIFFLMM_NAMES = TEXT_NAMES | {
    "model.multi_modal_projector.norm.": "model.mm_projector.sd_norm_layer.",
    "model.multi_modal_projector.narrow.": "model.mm_projector.sd_proj_layer.0.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.linear.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.linear.2.",
    "model.multi_modal_projector.positions": "model.mm_projector.vt_pe",
    "model.vision_tower.captioner.linear_1.": "model.mm_projector.clip_projector.0.",
    "model.vision_tower.captioner.linear_2.": "model.mm_projector.clip_projector.2.",
    "model.vision_tower.captioner.positions": "model.mm_projector.clip_pe",
}
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def load_original(
    folder: Path, base: str | None, dtype: torch.dtype, **options: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """As `difflmm.checkpoint.load_checkpoint`, of the authors' format."""
    config = read_json(folder / "config.json")
    _check_supported(folder, config)
    is_lora = (folder / "adapter_config.json").is_file()
    if base is not None and not is_lora:
        raise ValueError(f"{folder} is a whole checkpoint, not a LoRA: leave --base out.")
    base_folder = _base_folder(folder, config, base) if is_lora else folder
    tower, names = _tower(folder, config, dtype)
    tokenizer = tokenizer_with_image(base_folder)
    weights = {renamed(f"model.vision_tower.{name}", names): weight for name, weight in tower.weights.items()}
    weights |= read_weights(base_folder)  # a checkpoint's own tower goes before the tower's own
    if is_lora:
        weights = with_lora(weights, folder, dtype)
    path = base_folder / GENERATION_CONFIG_NAME
    generation = read_json(path) if path.is_file() else {}
    source = f"The checkpoint {folder}"
    parts = Parts(tower, _llama_config(config), tokenizer, weights, names, source, generation=generation)
    return assembled(parts, {"dtype": dtype} | options)


def _tower(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> tuple[Tower, dict[str, str]]:
    """With how names begin of a model that has it."""
    if config["mm_projector_type"] == "SDCLIPBlock":
        return diffusion_tower_of(folder, config, dtype), DIFFLMM_NAMES
    do_pad = config.get("image_aspect_ratio") == "pad"
    layer = config.get("mm_vision_select_layer", FEATURE_LAYER)
    return clip_tower(config["mm_vision_tower"], do_pad, folder, layer), LLAVA_NAMES


def _check_supported(folder: Path, config: dict[str, Any]) -> None:
    """ValueError for what only looks like LLaVA-1.5 or DiffLMM."""
    known: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "mm_projector_type": (config.get("mm_projector_type", "linear"), ("mlp2x_gelu", "SDCLIPBlock")),
        "image_aspect_ratio": (config.get("image_aspect_ratio"), ("pad", "square", None)),
        "mm_vision_select_feature": (config.get("mm_vision_select_feature", "patch"), ("patch",)),
        "mm_use_im_start_end": (config.get("mm_use_im_start_end", False), (False,)),
    }
    for key, (value, supported) in known.items():
        if value not in supported:
            raise ValueError(
                f"{folder}: {key} {value!r} is not LLaVA-1.5's ({supported[0]!r}). Newer LLaVAs are read in "
                "transformers' format."
            )
    if "mm_vision_tower" not in config:
        raise ValueError(f"{folder}/config.json does not name its vision tower (mm_vision_tower).")


def _base_folder(folder: Path, config: dict[str, Any], base: str | None) -> Path:
    """The base LLM of a LoRA checkpoint, whose sizes must be those that the LoRA was trained on."""
    if base is None:
        trained_on = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ValueError(
            f"{folder} is a LoRA: pass the LLM that it was trained on with --base (it names {trained_on})."
        )
    base_folder = local_folder("base LLM", base)
    base_config = read_json(base_folder / "config.json")
    if base_config.get("model_type") != "llama":
        raise ValueError(f"--base {base} is a {base_config.get('model_type')}, not a LLaMA.")
    for key in SIZES:
        ours, theirs = _size(config, key), _size(base_config, key)
        if ours != theirs:
            raise ValueError(
                f"--base {base} has {key} {theirs}, the LoRA {folder} was trained on a base with {ours}: name that one."
            )
    return base_folder


def _size(config: dict[str, Any], key: str) -> int | None:
    if key == "num_key_value_heads" and config.get(key) is None:
        key = "num_attention_heads"
    return config.get(key)


def _llama_config(config: dict[str, Any]) -> LlamaConfig:
    known = {field.name for field in fields(LlamaConfig)} | {"rope_theta", "rope_scaling"}
    return LlamaConfig(**{key: value for key, value in config.items() if key in known})
