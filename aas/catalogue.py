"""`aas list …`: what can be named in the commands."""

import math
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from aas import registry
from aas.choices import TRAINING_FREE
from aas.model_files import SCALES
from aas.presets import PRESETS

Row = dict[str, Any]
GIBIBYTE = 2**30
BITS_OF_4BIT = 4.5  # nf4 with its block constants
# Hugging Face id -> type of its config, and about how many parameters, in 10^9, the vision encoder included
CHECKPOINTS = {
    "llava-hf/llava-1.5-7b-hf": ("llava", 7.06),
    "llava-hf/llava-1.5-13b-hf": ("llava", 13.35),
    "llava-hf/llava-v1.6-mistral-7b-hf": ("llava_next", 7.57),
    "llava-hf/llava-onevision-qwen2-0.5b-ov-hf": ("llava_onevision", 0.89),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": ("llava_onevision", 8.03),
    "Qwen/Qwen2-VL-2B-Instruct": ("qwen2_vl", 2.21),
    "Qwen/Qwen2.5-VL-3B-Instruct": ("qwen2_5_vl", 3.75),
    "Qwen/Qwen2.5-VL-7B-Instruct": ("qwen2_5_vl", 8.29),
    "Qwen/Qwen3-VL-4B-Instruct": ("qwen3_vl", 4.44),
    "Qwen/Qwen3-VL-8B-Instruct": ("qwen3_vl", 8.77),
    "OpenGVLab/InternVL3-8B-hf": ("internvl", 7.94),
    "google/gemma-3-4b-it": ("gemma3", 4.30),
    "google/gemma-3-12b-it": ("gemma3", 12.19),
    "google/paligemma-3b-mix-448": ("paligemma", 2.92),
    "HuggingFaceTB/SmolVLM-256M-Instruct": ("idefics3", 0.26),
    "HuggingFaceTB/SmolVLM-Instruct": ("idefics3", 2.25),
    "HuggingFaceM4/Idefics3-8B-Llama3": ("idefics3", 8.46),
    "mistral-community/pixtral-12b": ("llava", 12.68),
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": ("mistral3", 24.01),
    "deepseek-community/deepseek-vl-7b-chat": ("deepseek_vl", 7.34),
    "deepseek-community/Janus-Pro-7B": ("janus", 7.42),
    "facebook/chameleon-7b": ("chameleon", 7.04),
    "zai-org/GLM-4.1V-9B-Thinking": ("glm4v", 10.29),
    "meta-llama/Llama-3.2-11B-Vision-Instruct": ("mllama", 10.67),
    "florence-community/Florence-2-large": ("florence2", 0.82),
}
SEGMENTERS = {
    "facebook/sam-vit-base": ("sam", 0.094),
    "facebook/sam-vit-large": ("sam", 0.312),
    "facebook/sam-vit-huge": ("sam", 0.641),
    "syscv-community/sam-hq-vit-huge": ("sam_hq", 0.644),
    "facebook/sam2.1-hiera-tiny": ("sam2_video", 0.039),
    "facebook/sam2.1-hiera-large": ("sam2_video", 0.224),
    "facebook/sam3": ("sam3_video", 0.860),
}
PIPELINES = {
    "embedded": "English, trained here; ships with the package, with word vectors of its own",
    "en_core_web_sm": "English; no word vectors, so no categories (segment instance)",
    "en_core_web_md": "English, with word vectors",
    "en_core_web_lg": "English, with word vectors: what the published method uses",
    "en_core_web_trf": "English, a transformer; no word vectors",
}


# the authors' files of mask heads, by the names that their repositories give -> whose, kind, LMM; F-LMM's need
# facebook/sam-vit-large
PUBLISHED_HEADS = {
    f"{name}_refcoco_png.pth": head
    for name, head in {
        "frozen_llava_1_5_vicuna_7b_unet_sam_l": ("F-LMM", "unet", "llava-hf/llava-1.5-7b-hf"),
        "frozen_llava_next_vicuna_7b_unet_sam_l": ("F-LMM", "unet", "llava-hf/llava-v1.6-vicuna-7b-hf"),
        "frozen_llava_next_mistral_7b_unet_sam_l": ("F-LMM", "unet", "llava-hf/llava-v1.6-mistral-7b-hf"),
        "frozen_deepseek_vl_1_3b_chat_unet_sam_l": ("F-LMM", "unet", "deepseek-community/deepseek-vl-1.3b-chat"),
        "frozen_deepseek_vl_7b_chat_unet_sam_l": ("F-LMM", "unet", "deepseek-community/deepseek-vl-7b-chat"),
        "hg_frozen_llava_1_5_vicuna_7b": ("HG-LMM", "highres", "llava-hf/llava-1.5-7b-hf"),
        "hg_frozen_deepseek_vl_1_3b_chat": ("HG-LMM", "highres", "deepseek-community/deepseek-vl-1.3b-chat"),
        "hg_frozen_deepseek_vl_7b_chat": ("HG-LMM", "highres", "deepseek-community/deepseek-vl-7b-chat"),
    }.items()
}


def models() -> list[Row]:
    """Checkpoints to name with --model, and a line for each family of LMMs."""
    return [_embedded("lmm", "llava"), *_sized(CHECKPOINTS)] + [
        {"model_type": model_type, "family": family, "image_tokens": described}
        for model_type, (family, described) in sorted(_families(registry.LMM_FAMILIES).items())
    ]


def segmenters() -> list[Row]:
    """Checkpoints to name with --segmenter, names that need none, and the types of checkpoints."""
    named = [{"id": name, "class": where} for name, where in registry.SEGMENTERS_BY_NAME.items()]
    types = [{"model_type": name, "family": family} for name, (family, _) in _families(registry.SEGMENTERS).items()]
    return [_embedded("segmenter", "embedded_sam"), *_sized(SEGMENTERS), *named, *types]


def phrases() -> list[Row]:
    """spaCy pipelines to name with --phrases; any other that has a parser and a tagger works too."""
    return [
        {"id": name, "here": name == "embedded" or find_spec(name) is not None, "what": what}
        for name, what in PIPELINES.items()
    ]


def presets() -> list[Row]:
    """Variants of the method to name with --preset."""
    return [{"id": name, **asdict(preset)} for name, preset in PRESETS.items()]


def datasets() -> list[Row]:
    """Datasets of given expressions, for `aas expressions` and `aas eval`."""
    return _described(registry.EXPRESSION_DATASETS)


def metrics() -> list[Row]:
    """Measures of given expressions."""
    return _described(registry.EXPRESSION_METRICS)


def maps() -> list[Row]:
    """Map sources to name with --maps, with an argument as docs/maps.md says."""
    return _described(registry.MAP_SOURCES)


def heads() -> list[Row]:
    """Names for --head, the kinds of mask heads that are trained on a frozen LMM, and the authors' files.

    Those lie at the authors' places, on no hub: get them by hand, and `aas head import` makes heads of them.
    """
    free = {"head": TRAINING_FREE, "what": "Masks by prompts at the peaks of a phrase's map, as without --head."}
    return [free, *_shipped_heads(), *_described(registry.MASK_HEADS), *map(_published_head, PUBLISHED_HEADS.items())]


def _shipped_heads() -> list[Row]:
    from aas.heads.named import head_path
    from aas.heads.stored import read_head_file

    files = {name: read_head_file(head_path(name)) for name in registry.SHIPPED_HEADS}
    return [{"head": name, "what": f"{said.kind} on {said.lmm}"} for name, said in files.items()]


def _published_head(entry: tuple[str, tuple[str, str, str]]) -> Row:
    file, (authors, kind, model) = entry
    return {"file": file, "by": authors, "kind": kind, "model": model}


def formats() -> list[Row]:
    """Formats of `aas export`; those that `aas import` reads back."""
    return [{**row, "import": row["id"] in registry.IMPORTS} for row in _described(registry.EXPORTS)]


LISTS: dict[str, Callable[[], list[Row]]] = {
    "models": models,
    "segmenters": segmenters,
    "phrases": phrases,
    "presets": presets,
    "maps": maps,
    "heads": heads,
    "datasets": datasets,
    "metrics": metrics,
    "formats": formats,
}


def _families(table: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Name -> the class's name and the first paragraph of what it says of itself."""
    found = {}
    for name in sorted(table):
        family = registry.load(table, name, "family")
        found[name] = family.__name__, registry.summary(family)
    return found


def _described(table: dict[str, str]) -> list[Row]:
    return [{"id": name, "what": described} for name, (_, described) in _families(table).items()]


def _sized(checkpoints: dict[str, tuple[str, float]]) -> list[Row]:
    return [_with_memory(name, model_type, billions * 1e9) for name, (model_type, billions) in checkpoints.items()]


def _with_memory(name: str, model_type: str, n_weights: float) -> Row:
    """About: what else lies in memory depends on the images and the answers, see `aas doctor`."""
    return {
        "id": name,
        "model_type": model_type,
        "parameters_billion": round(n_weights / 1e9, 4),
        "bf16_gib": round(n_weights * 2 / GIBIBYTE, 3),
        "4bit_gib": round(n_weights * BITS_OF_4BIT / 8 / GIBIBYTE, 3),
    }


def _embedded(kind: str, model_type: str) -> Row:
    from safetensors import safe_open

    from aas.paths import embedded_dir

    n_weights = 0
    for path in embedded_dir(kind).glob("*.safetensors"):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118  no mapping
                n_weights += 0 if name.endswith(SCALES) else math.prod(file.get_slice(name).get_shape())
    return _with_memory("embedded", model_type, n_weights)


def rows_of(kind: str) -> list[Row]:
    """The list as plain data."""
    return LISTS[kind]()


def show(kind: str) -> None:
    """Print the list as a table, as wide as the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    rows = rows_of(kind)
    for columns in dict.fromkeys(tuple(row) for row in rows):
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            if tuple(row) == columns:
                table.add_row(*("all" if row[name] is None else str(row[name]) for name in columns))
        console.print(table)
        console.print()
    console.print((LISTS[kind].__doc__ or "").strip())
    if kind == "models":
        console.print("Any other model type runs if its processor declares one grid of image tokens; aas doctor tells.")
        console.print(f"Refused, their image tokens have no place in the image: {', '.join(registry.LMM_REFUSED)}.")
