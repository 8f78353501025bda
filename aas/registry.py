"""Names of what can be plugged in, and where it is. Nothing is imported until it is asked for."""

from importlib import import_module
from typing import Any

# model_type of config.json -> class of the family; "model_type/tower's model_type" where the tower decides
LMM_FAMILIES = {
    "gemma3": "aas.lmms.gemma3:Gemma3",
    "idefics3": "aas.lmms.idefics3:Idefics3",
    "internvl": "aas.lmms.internvl:InternVL",
    "llava": "aas.lmms.llava:Llava",
    "llava/pixtral": "aas.lmms.pixtral:Pixtral",
    "llava_llama": "aas.lmms.llava_original:LlavaOriginal",
    "llava_next": "aas.lmms.llava_next:LlavaNext",
    "llava_onevision": "aas.lmms.llava_next:LlavaOnevision",
    "mistral3": "aas.lmms.pixtral:Pixtral",
    "paligemma": "aas.lmms.paligemma:PaliGemma",
    "smolvlm": "aas.lmms.idefics3:Idefics3",
    "qwen2_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen2_5_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl_moe": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_5": "aas.lmms.qwen_vl:QwenVL",
    "glm4v": "aas.lmms.qwen_vl:QwenVL",
    "glm4v_moe": "aas.lmms.qwen_vl:QwenVL",
    "glm46v": "aas.lmms.qwen_vl:QwenVL",
    "vipllava": "aas.lmms.llava:Llava",
}


def load(table: dict[str, str], name: str, what: str) -> Any:
    """The object behind `name`; an unknown name is a ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}. Known: {', '.join(sorted(table))}.")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)
