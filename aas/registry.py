"""Names of what can be plugged in, and where it is. Nothing is imported until it is asked for."""

from importlib import import_module
from pathlib import Path
from typing import Any

# model_type of config.json -> class of the family; "model_type/tower's model_type" where the tower decides
LMM_FAMILIES = {
    "chameleon": "aas.lmms.chameleon:Chameleon",
    "deepseek_vl": "aas.lmms.deepseek_vl:DeepseekVL",
    "deepseek_vl_hybrid": "aas.lmms.deepseek_vl:DeepseekVL",
    "difflmm": "aas.lmms.difflmm:DiffLMM",
    "florence2": "aas.lmms.florence2:Florence2",
    "gemma3": "aas.lmms.gemma3:Gemma3",
    "glm46v": "aas.lmms.qwen_vl:QwenVL",
    "glm4v": "aas.lmms.qwen_vl:QwenVL",
    "glm4v_moe": "aas.lmms.qwen_vl:QwenVL",
    "idefics3": "aas.lmms.idefics3:Idefics3",
    "internvl": "aas.lmms.internvl:InternVL",
    "janus": "aas.lmms.deepseek_vl:Janus",
    "llava": "aas.lmms.llava:Llava",
    "llava/pixtral": "aas.lmms.pixtral:Pixtral",
    "llava_llama": "aas.lmms.difflmm:LlavaOriginal",
    "llava_next": "aas.lmms.llava_next:LlavaNext",
    "llava_onevision": "aas.lmms.llava_next:LlavaOnevision",
    "mistral3": "aas.lmms.pixtral:Pixtral",
    "mllama": "aas.lmms.mllama:Mllama",
    "paligemma": "aas.lmms.paligemma:PaliGemma",
    "qwen2_5_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen2_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_5": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl": "aas.lmms.qwen_vl:QwenVL",
    "qwen3_vl_moe": "aas.lmms.qwen_vl:QwenVL",
    "smolvlm": "aas.lmms.idefics3:Idefics3",
    "vipllava": "aas.lmms.llava:Llava",
}
# every other model type, if its processor declares the grid
LMM_FALLBACK = "aas.lmms.declared_grid:DeclaredGrid"
_QUERIES = "its image tokens are answers to learned queries, and none of them belongs to a place in the image"
# transformers' model_type -> why its attention cannot be shown on the image
LMM_REFUSED = {
    "aria": _QUERIES,
    "blip-2": _QUERIES,
    "deepseek_ocr2": _QUERIES,
    "idefics2": _QUERIES,
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "kosmos-2": _QUERIES,
    "kosmos-2.5": _QUERIES,
}


def lmm_family(config: dict[str, Any]) -> Any:
    """The class for a model of that config.json, by its type, and that of its tower where the table asks for it.

    ValueError for a type that is refused; a type without a family gets the fallback, which looks closer.
    """
    model_type = config.get("model_type", "")
    with_tower = f"{model_type}/{(config.get('vision_config') or {}).get('model_type')}"
    if model_type in LMM_REFUSED:
        raise ValueError(f"Models of type {model_type!r} are refused: {LMM_REFUSED[model_type]}.")
    name = with_tower if with_tower in LMM_FAMILIES else model_type
    return load({name: LMM_FALLBACK} | LMM_FAMILIES, name, "LMM family")


def unknown_lmm(model_type: str, reason: str) -> ValueError:
    """What to raise for a model type that has no family; `reason`: why it does not run without one."""
    return ValueError(
        f"No family of LMMs for the model type {model_type!r}: {reason}. Families: {', '.join(sorted(LMM_FAMILIES))}. "
        "How to add one: docs/adding-a-model.md."
    )


# model_type of config.json -> class of the segmenter; the hub's SAM 2 and SAM 3 folders are those of the video models
SEGMENTERS = {
    "embedded_sam": "aas.segmenters.embedded:EmbeddedSegmenter",
    "sam": "aas.segmenters.sam:SamSegmenter",
    "sam_hq": "aas.segmenters.sam_hq:SamHQSegmenter",
    "sam2": "aas.segmenters.sam2:Sam2Segmenter",
    "sam2_video": "aas.segmenters.sam2:Sam2Segmenter",
    "sam3_tracker": "aas.segmenters.sam2:Sam2Segmenter",
    "sam3_video": "aas.segmenters.sam2:Sam2Segmenter",
}
# name for --segmenter -> class of a segmenter that needs no checkpoint
SEGMENTERS_BY_NAME = {"map": "aas.segmenters.map_alone:MapAlone"}

# --maps NAME[:ARGUMENT] -> a way from what was captured to one map per token (docs/maps.md)
MAP_SOURCES = {
    "mean": "aas.maps.mean:Mean",
    "layers": "aas.maps.layers:Layers",
    "heads": "aas.maps.heads:Heads",
    "ratio": "aas.maps.ratio:Ratio",
    "contrast": "aas.maps.contrast:Contrast",
    "values": "aas.maps.values:Values",
    "sinkless": "aas.maps.sinkless:Sinkless",
    "rollout": "aas.maps.rollout:Rollout",
    "lens": "aas.maps.lens:Lens",
    "cosine": "aas.maps.cosine:Cosine",
    "tam": "aas.maps.tam:Tam",
    "attribution": "aas.maps.attribution:Attribution",
    "fused": "aas.maps.fused:Fused",
    "blackbox": "aas.maps.blackbox:Blackbox",
}

# head of a recipe -> a kind of mask head that is trained on a frozen LMM (docs/heads.md)
MASK_HEADS = {
    "unet": "aas.heads.unet:UNetHead",
    "highres": "aas.heads.highres:HighResHead",
    "proposals": "aas.heads.proposals:ProposalHead",
}

# --head NAME of a head that ships -> its file in checkpoints/embedded/heads
SHIPPED_HEADS = {"proposals": "proposals.safetensors"}

# scheme of a URL -> where the bytes of photographs come from (docs/scaling.md); of others that fsspec knows, add a line
PHOTOGRAPH_STORES = {
    "http": "aas.photographs.web:Web",
    "https": "aas.photographs.web:Web",
    **dict.fromkeys(
        ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf", "webhdfs", "memory"),
        "aas.photographs.remote:Remote",
    ),
}
# suffix of a file that holds many photographs, and scheme of the address of one in it -> how they are found and read
PHOTOGRAPH_SHARDS = {
    "tar": "aas.photographs.tar:Tar",
    "parquet": "aas.photographs.parquet:Parquet",
}

# `aas expressions NAME`, `aas eval NAME` -> a dataset of given expressions (docs/adding-a-dataset.md)
EXPRESSION_DATASETS = {
    "coco": "aas.datasets.categories:Categories",
    "refcoco": "aas.datasets.refcoco:RefCoco",
    "png": "aas.datasets.png:Png",
    "reasonseg": "aas.datasets.reasonseg:ReasonSeg",
}
# --metric -> how well masks of given expressions fit: mask pairs to evidence (docs/adding-a-metric.md)
EXPRESSION_METRICS = {
    "referring": "aas.metrics.referring:referring",
    "narratives": "aas.metrics.narratives:narratives",
}
# figure -> how well captions say what references say, in the order of the report: words to evidence
CAPTION_METRICS = {
    "METEOR": "aas.metrics.meteor:Meteor",
    "CIDEr": "aas.metrics.cider:Cider",
    "Bleu": "aas.metrics.bleu:Bleu",
    "ROUGE_L": "aas.metrics.rouge:Rouge",
    "SPICE": "aas.metrics.spice:Spice",
}
# kind of evidence -> the formula that makes figures of it, for any resample of the images
EVIDENCE_KINDS = {
    "mean": "aas.metrics.mean:mean",
    "signed_mean": "aas.metrics.mean:mean",
    "auc": "aas.metrics.auc:auc",
    "bleu": "aas.metrics.bleu:bleu",
    "meteor": "aas.metrics.meteor:meteor",
    "detections": "aas.metrics.average_precision:average_precision",
}
# `aas eval NAME` that is no dataset of given expressions -> its options, which run it
EVALUATIONS = {
    "gcg": "aas.evaluations.gcg:EvalGcg",
    "instance": "aas.evaluations.instance:EvalInstance",
    "cot": "aas.stages.cot_scores_options:EvalCot",
    "yesno": "aas.stages.yes_no_options:EvalYesNo",
    "hallucination": "aas.evaluations.hallucination:EvalHallucination",
    "compare": "aas.evaluations.compare:EvalCompare",
}
# `aas export NAME` -> the format
EXPORTS = {
    "coco": "aas.export.coco:Coco",
    "coco-panoptic": "aas.export.coco_panoptic:CocoPanoptic",
    "cvat": "aas.export.cvat:Cvat",
    "fiftyone": "aas.export.fiftyone:FiftyOne",
    "glamm": "aas.export.glamm:Glamm",
    "huggingface": "aas.export.huggingface:HuggingFace",
    "labelme": "aas.export.labelme:LabelMe",
    "labelstudio": "aas.export.labelstudio:LabelStudio",
    "voc": "aas.export.voc:Voc",
    "yolo": "aas.export.yolo:Yolo",
}
# `aas import NAME` -> what reads the format
IMPORTS = {
    "coco": "aas.export.from_coco:FromCoco",
    "labelme": "aas.export.from_labelme:FromLabelMe",
    "labelstudio": "aas.export.from_labelstudio:FromLabelStudio",
}


def names_segmenter_class(name: str) -> bool:
    """Whether it is a name of `SEGMENTERS_BY_NAME` or, as `package.module:Class`, of a class anywhere; no file's."""
    module, colon, attribute = name.partition(":")
    is_import = bool(colon) and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))
    return name in SEGMENTERS_BY_NAME or (is_import and not Path(name).exists())


def known(table: dict[str, str], name: str, what: str) -> str:
    """What stands behind `name`; an unknown name is a ValueError that lists the known ones."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}. Known: {', '.join(sorted(table))}.")
    return table[name]


def load(table: dict[str, str], name: str, what: str) -> Any:
    """The object behind `name`; ValueError as `known`."""
    module, attribute = known(table, name, what).split(":")
    return getattr(import_module(module), attribute)


def summary(found: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((found.__doc__ or "").split("\n\n")[0].split())
