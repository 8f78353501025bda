"""LLaVA-1.5 in its authors' own format (`model_type: llava_llama`): whole, or as a LoRA over its base LLM.

The weights become those of transformers' LLaVA; the image and the prompt are made as the authors' code makes them.
"""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import normalizers
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaProcessor,
    PreTrainedModel,
    ProcessorMixin,
)

from aas.lmms.checkpoint import ADAPTER_FILES, local_folder, read_json, read_weights, weight_files
from aas.lmms.llava import Llava

# The conversation "llava_v1": what stands before the image, and after it with the question between. It speaks of a
# human; "vicuna_v1", which transformers' LLaVA-1.5 uses, is the same with "user", and its maps differ.
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. USER: "
)
BEFORE_QUESTION, AFTER_QUESTION = "\n", " ASSISTANT:"
IMAGE_TOKEN = "<image>"

# How names begin: in transformers' LLaVA, and in the authors' checkpoints.
NAMES = {
    "model.language_model.": "model.",
    "model.multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "model.multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "model.vision_tower.": "model.vision_tower.vision_tower.vision_model.",
}
COMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")  # in old checkpoints: no weights, but constants
TOKENIZER_FILES = ("tokenizer.model", "tokenizer.json")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


class LlavaOriginal(Llava):
    """One grid, as transformers' LLaVA. The image is padded to a square where the checkpoint says so."""

    @classmethod
    def load(
        cls, source: str, revision: str, base: str | None = None, **options: Any
    ) -> tuple[PreTrainedModel, ProcessorMixin]:
        folder = local_folder("model", source if Path(source).is_dir() else f"{source}@{revision}")
        config = read_json(folder / "config.json")
        _check_supported(folder, config)
        is_lora = (folder / "adapter_config.json").is_file()
        base_folder = _base_folder(folder, config, base) if is_lora else folder
        if base is not None and not is_lora:
            raise ValueError(f"{folder} is a whole checkpoint, not a LoRA: leave --base out.")
        files = weight_files(base_folder)
        tower_folder = local_folder("vision tower", config["mm_vision_tower"], beside=folder)
        tower_type = read_json(tower_folder / "config.json").get("model_type")
        if tower_type not in ("clip", "clip_vision_model"):
            raise ValueError(f"{folder}: its vision tower {config['mm_vision_tower']} is a {tower_type!r}, not a CLIP.")
        tower_files = weight_files(tower_folder)

        tokenizer = _tokenizer(base_folder)
        image_processor = LlavaImageProcessorPil.from_pretrained(
            tower_folder, do_pad=config.get("image_aspect_ratio") == "pad"
        )
        vision_config = CLIPVisionConfig.from_pretrained(tower_folder)
        # A whole CLIP has a text part too. What the checkpoint itself holds of the tower goes before the tower's own.
        tower = read_weights(tower_files)
        weights = {f"model.vision_tower.vision_tower.{k}": v for k, v in tower.items() if k.startswith("vision_model.")}
        weights |= read_weights(files)
        if is_lora:
            weights = with_lora(weights, folder, options["dtype"])
        image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        model = _model(_llava_config(config, vision_config, image_id), weights, options)
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=config.get("eos_token_id", tokenizer.eos_token_id),
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=[image_id],
        )
        processor = LlavaProcessor(
            image_processor,
            tokenizer,
            patch_size=vision_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )
        return model, processor

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """The conversation `llava_v1`; the text before the image and that after it are tokenized each on its own."""
        pixels = self.processor.image_processor(images=image, input_data_format="channels_last", return_tensors="pt")
        pixel_values = pixels["pixel_values"]
        patch = self.processor.patch_size
        n_image = (pixel_values.shape[-2] // patch) * (pixel_values.shape[-1] // patch)
        before, after = (
            self.tokenizer.encode(text, add_special_tokens=False)
            for text in (SYSTEM, BEFORE_QUESTION + question + AFTER_QUESTION)
        )
        ids = [self.tokenizer.bos_token_id, *before, *[self.model.config.image_token_id] * n_image, *after]
        input_ids = torch.tensor([ids])
        return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixel_values}


def _check_supported(folder: Path, config: dict[str, Any]) -> None:
    """ValueError for what only looks like LLaVA-1.5."""
    projector = config.get("mm_projector_type", "linear")
    if projector == "SDCLIPBlock":
        raise ValueError(f"{folder} is a DiffLMM checkpoint: reading those comes with the difflmm package.")
    known: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "mm_projector_type": (projector, ("mlp2x_gelu",)),
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


def _size(config: dict[str, Any], key: str) -> int:
    if key == "num_key_value_heads" and config.get(key) is None:
        key = "num_attention_heads"
    return config[key]


def _tokenizer(folder: Path) -> LlamaTokenizer:
    """The checkpoint's SentencePiece model, with a token for the image at the end.

    transformers adds no space before text that begins with one; SentencePiece, and so the authors' tokenizer, always
    does.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):  # of which transformers would make an empty one
        raise FileNotFoundError(f"{folder} has no tokenizer: there is none of {', '.join(TOKENIZER_FILES)}.")
    tokenizer = LlamaTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = None
    tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_TOKEN]})
    return tokenizer


def _llava_config(config: dict[str, Any], vision_config: CLIPVisionConfig, image_id: int) -> LlavaConfig:
    known = {field.name for field in fields(LlamaConfig)} | {"rope_theta", "rope_scaling"}
    text = {key: value for key, value in config.items() if key in known}
    return LlavaConfig(
        vision_config=vision_config,
        text_config=LlamaConfig(**text),
        image_token_index=image_id,
        image_seq_length=(vision_config.image_size // vision_config.patch_size) ** 2,
        vision_feature_layer=config.get("mm_vision_select_layer", -2),
    )


def with_lora(weights: dict[str, Tensor], folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """`weights` of the base with a LoRA added, W + scale * B A, computed in float32 and kept in `dtype`; and with what
    was trained beside it (the projector)."""
    settings = read_json(folder / "adapter_config.json")
    unknown = [key for key in ("use_dora", "alpha_pattern", "modules_to_save", "fan_in_fan_out") if settings.get(key)]
    if settings.get("bias", "none") != "none":
        unknown.append("bias")
    if unknown:
        raise ValueError(f"{folder}/adapter_config.json: {', '.join(unknown)} is not supported.")
    beside = weight_files(folder, ("non_lora_trainables.bin",))
    weights = weights | {_plain_name(k): v for k, v in read_weights(beside).items()}

    halves = read_weights(weight_files(folder, ADAPTER_FILES))
    pairs: dict[str, dict[str, Tensor]] = {}
    left_over = []
    for key, half in halves.items():
        found = re.fullmatch(r"(.+)\.lora_([AB])(?:\.default)?\.weight", _plain_name(key))
        name = f"{found[1]}.weight" if found else ""
        if found and name in weights:
            pairs.setdefault(name, {})[found[2]] = half
        else:
            left_over.append(key)
    modules = settings["target_modules"]
    if isinstance(modules, list):  # otherwise a pattern, which only its layers tell
        wanted = {k for k in weights if k.startswith("model.layers.") and _is_one_of(k, modules)}
        missing = sorted(wanted - pairs.keys())
    else:
        missing = []
    missing += sorted(name for name, pair in pairs.items() if len(pair) < 2)
    _complain(f"The LoRA {folder}", missing, left_over)

    for name, pair in pairs.items():
        a, b, weight = pair["A"].float(), pair["B"].float(), weights[name]
        if (len(b), a.shape[1]) != weight.shape or len(a) != b.shape[1]:
            raise ValueError(
                f"The LoRA {folder} does not fit its base: {name} is {list(weight.shape)}, the LoRA's "
                f"{[len(b), a.shape[1]]}. Name the LLM that it was trained on with --base."
            )
        rank = len(a)
        scale = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
        weights[name] = (weight.float() + scale * (b @ a)).to(dtype)
    return weights


def _plain_name(name: str) -> str:
    """Without what peft puts in front of a model's own names."""
    return re.sub(r"^(base_model\.model\.|base_model\.)?(model\.(?=model\.|lm_head\.))?", "", name)


def _is_one_of(name: str, modules: list[str]) -> bool:
    return any(name.removesuffix(".weight").endswith(f".{module}") for module in modules)


def _original_name(name: str) -> str:
    for ours, theirs in NAMES.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _model(config: LlavaConfig, weights: dict[str, Tensor], options: dict[str, Any]) -> LlavaForConditionalGeneration:
    """transformers' LLaVA with `weights`, whose names are the authors'; every one of them has its place."""
    with torch.device("meta"):
        skeleton = LlavaForConditionalGeneration(config)
    places = {_original_name(name): (name, tensor.shape) for name, tensor in skeleton.state_dict().items()}
    weights = {name: weight for name, weight in weights.items() if not name.endswith(COMPUTED)}
    _complain("The checkpoint", sorted(places.keys() - weights.keys()), sorted(weights.keys() - places.keys()))
    for name, (_, shape) in places.items():
        if weights[name].shape != shape:
            raise ValueError(
                f"The checkpoint's {name} is {list(weights[name].shape)}, its config.json says {list(shape)}."
            )
    # A row for the image's token, which stands in the prompt where the image's features go and is never generated.
    vocabulary = config.text_config.vocab_size
    n_more = max(0, config.image_token_id + 1 - vocabulary)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = F.pad(weights[name], (0, 0, 0, n_more))
    config.text_config.vocab_size = vocabulary + n_more
    state = {places[name][0]: weight for name, weight in weights.items()}
    model, info = LlavaForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, **options
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    return model


def _complain(what: str, missing: list[str], left_over: list[str]) -> None:
    reasons = []
    if missing:
        reasons.append(f"{len(missing)} weights are missing: {_some(missing)}")
    if left_over:
        reasons.append(f"{len(left_over)} have no place: {_some(left_over)}")
    if reasons:
        raise ValueError(f"{what} is not a whole LLaVA-1.5. Of its weights, {'; '.join(reasons)}.")


def _some(names: Any, n: int = 6) -> str:
    names = sorted(names)
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")
