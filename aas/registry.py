"""Names of what can be plugged in, and where it is. Nothing is imported until it is asked for."""

from importlib import import_module
from typing import Any

# model_type of config.json -> class of the family
LMM_FAMILIES = {
    "internvl": "aas.lmms.internvl:InternVL",
    "llava": "aas.lmms.llava:Llava",
    "llava_llama": "aas.lmms.llava_original:LlavaOriginal",
    "llava_next": "aas.lmms.llava_next:LlavaNext",
    "llava_onevision": "aas.lmms.llava_next:LlavaOnevision",
    "vipllava": "aas.lmms.llava:Llava",
    "qwen2_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen2_5_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl_moe": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_5": "aas.lmms.qwen_vl:QwenVL",
    "glm4v": "aas.lmms.qwen_vl:QwenVL",
    "glm4v_moe": "aas.lmms.qwen_vl:QwenVL",
    "glm46v": "aas.lmms.qwen_vl:QwenVL",
}

# model_type of config.json -> class of the segmenter; the hub's SAM 2 and SAM 3 folders are those of the video models
SEGMENTERS = {
    "embedded_sam": "aas.segmenters.sam:SamSegmenter",
    "sam": "aas.segmenters.sam:SamSegmenter",
    "sam_hq": "aas.segmenters.sam_hq:SamHQSegmenter",
    "sam2": "aas.segmenters.sam2:Sam2Segmenter",
    "sam2_video": "aas.segmenters.sam2:Sam2Segmenter",
    "sam3_tracker": "aas.segmenters.sam2:Sam2Segmenter",
    "sam3_video": "aas.segmenters.sam2:Sam2Segmenter",
}


def load(table: dict[str, str], name: str, what: str) -> Any:
    """The object behind `name`; an unknown name is a ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}. Known: {', '.join(sorted(table))}.")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)
