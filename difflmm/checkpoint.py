"""Checkpoints to models: the authors' format (`model_type: llava_llama`), whole or as a LoRA over its base LLM; ours;
and new models of an LLM and towers.

Of the authors' format both LLaVA-1.5, which becomes transformers' own LLaVA, and DiffLMM are read. Every weight has its
place, and every place its weight, or there is an error that lists them. diffusers is needed for DiffLMM only.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from difflmm.files import COMPUTED, complain, local_folder, read_json, read_weights
from difflmm.lora import with_lora
from difflmm.processor import IMAGE_TOKEN, make_processor, tokenizer_with_image
from difflmm.towers import Tower, clip_tower, diffusion_tower, diffusion_tower_of, need_diffusers

# How names begin: in our models, and in the authors' checkpoints.
TEXT_NAMES = {"model.language_model.": "model."}
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
NEW = ("model.multi_modal_projector.", "model.vision_tower.captioner.")  # what training begins with, of our names
DTYPES = ("float32", "bfloat16", "float16")
SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True)
class Parts:
    """What a model is made of. `weights`: of all of it, `names` says how theirs begin; `what`: they are, for errors;
    `new`: beginnings of our names of weights that are not there yet."""

    tower: Tower
    text: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    weights: dict[str, Tensor]
    names: dict[str, str]
    what: str
    new: tuple[str, ...] = ()

    def may_lack(self, name: str) -> bool:
        return any(name.startswith(beginning) for beginning in self.new)


def load_checkpoint(
    source: str, base: str | None = None, dtype: torch.dtype | str = "auto", **options: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A model of a folder or Hugging Face id (`id@revision`), in our format or the authors', and its processor.

    `base`: the LLM that a LoRA in the authors' format was trained on. `dtype`: auto is the checkpoint's own. `options`:
    more of `from_pretrained`. Raises ValueError or FileNotFoundError for what cannot be loaded as a whole.
    """
    folder = local_folder("model", source)
    config = read_json(folder / "config.json")
    model_type, dtype = config.get("model_type"), _dtype(dtype, config)
    if model_type == "llava_llama":
        return load_original(folder, base, dtype, **options)
    if base is not None:
        raise ValueError(f"{folder} is a whole checkpoint, not a LoRA: leave --base out.")
    if model_type not in ("difflmm", "llava"):
        raise ValueError(f"{folder} is a {model_type!r}, not a DiffLMM or LLaVA.")
    if model_type == "difflmm":
        need_diffusers()
    read_weights(folder)  # mapped into memory, not copied: the files are whole
    model, info = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, output_loading_info=True, **options)
    complain(f"The checkpoint {folder}", sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))
    return model, AutoProcessor.from_pretrained(folder)


def _dtype(wanted: torch.dtype | str, config: dict[str, Any]) -> torch.dtype:
    if isinstance(wanted, torch.dtype):
        return wanted
    if wanted == "auto":
        wanted = config.get("dtype") or config.get("torch_dtype") or "float32"
    if wanted not in DTYPES:
        raise ValueError(f"Unknown dtype {wanted!r}. Known: auto, {', '.join(DTYPES)}.")
    return getattr(torch, wanted)


def convert(source: str, out: Path, base: str | None = None, dtype: str = "auto") -> None:
    """Write a checkpoint in transformers' format into the new folder `out`; arguments as for `load_checkpoint`.

    The folder appears when it is complete.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: name a folder that is not.")
    model, processor = load_checkpoint(source, base, dtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as part:
        whole = Path(part) / out.name
        model.save_pretrained(whole)
        processor.save_pretrained(whole)
        whole.replace(out)


def load_original(
    folder: Path, base: str | None, dtype: torch.dtype, **options: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """As `load_checkpoint`, of the authors' format."""
    config = read_json(folder / "config.json")
    _check_supported(folder, config)
    is_lora = (folder / "adapter_config.json").is_file()
    if base is not None and not is_lora:
        raise ValueError(f"{folder} is a whole checkpoint, not a LoRA: leave --base out.")
    base_folder = _base_folder(folder, config, base) if is_lora else folder
    if config["mm_projector_type"] == "SDCLIPBlock":
        tower, names = diffusion_tower_of(folder, config, dtype), DIFFLMM_NAMES
    else:
        do_pad = config.get("image_aspect_ratio") == "pad"
        tower, names = clip_tower(config["mm_vision_tower"], do_pad, beside=folder), LLAVA_NAMES
    tokenizer = tokenizer_with_image(base_folder)

    weights = {_renamed(f"model.vision_tower.{name}", names): weight for name, weight in tower.weights.items()}
    weights |= read_weights(base_folder)  # a checkpoint's own tower goes before the tower's own
    if is_lora:
        weights = with_lora(weights, folder, dtype)
    parts = Parts(tower, _llama_config(config), tokenizer, weights, names, f"The checkpoint {folder}")
    return _assembled(parts, {"dtype": dtype} | options)


def new_difflmm(
    llm: str, diffusion: str, clip: str | None, dtype: torch.dtype = torch.float32, **encoder: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A DiffLMM to be trained: an LLM, a Stable Diffusion and a CLIP, each a folder or Hugging Face id; projector and
    captioner are random. `encoder`: fields of `DiffusionEncoderConfig`."""
    return _new(llm, diffusion_tower(diffusion, clip, dtype, **encoder), dtype)


def new_llava(
    llm: str, clip: str, dtype: torch.dtype = torch.float32
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A plain LLaVA-1.5 to be trained, likewise."""
    return _new(llm, clip_tower(clip, do_pad=True), dtype)


def _new(llm: str, tower: Tower, dtype: torch.dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    folder = local_folder("LLM", llm)
    text = AutoConfig.from_pretrained(folder)
    weights = {f"model.vision_tower.{name}": weight for name, weight in tower.weights.items()} | read_weights(folder)
    if text.tie_word_embeddings:
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    parts = Parts(tower, text, tokenizer_with_image(folder), weights, TEXT_NAMES, f"The LLM {llm}", new=NEW)
    return _assembled(parts, {"dtype": dtype})


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


def _size(config: dict[str, Any], key: str) -> int:
    if key == "num_key_value_heads" and config.get(key) is None:
        key = "num_attention_heads"
    return config[key]


def _llama_config(config: dict[str, Any]) -> LlamaConfig:
    known = {field.name for field in fields(LlamaConfig)} | {"rope_theta", "rope_scaling"}
    return LlamaConfig(**{key: value for key, value in config.items() if key in known})


def _renamed(name: str, names: dict[str, str]) -> str:
    for ours, theirs in names.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _assembled(parts: Parts, options: dict[str, Any]) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model of `parts` and its processor. `options`: of `from_pretrained`."""
    tower, text, tokenizer = parts.tower, parts.text, parts.tokenizer
    image_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config_class, model_class = _classes(tower)
    config = config_class(
        vision_config=tower.config, text_config=text, image_token_index=image_id, image_seq_length=tower.n_cells
    )
    with torch.device("meta"):
        skeleton = model_class(config)
    state = _placed(parts, {name: weight.shape for name, weight in skeleton.state_dict().items()})
    _make_room_for_the_image(config, state)
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, **options
    )
    assert all(map(parts.may_lack, info["missing_keys"])) and not info["unexpected_keys"], info
    ends = getattr(text, "eos_token_id", None)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=[image_id],
    )
    return model, make_processor(tokenizer, tower.image_processor, tower.config.patch_size, has_cls=tower.is_clip)


def _classes(tower: Tower) -> tuple[Any, Any]:
    if tower.is_clip:
        return LlavaConfig, LlavaForConditionalGeneration
    from difflmm.model import DiffLMMConfig, DiffLMMForConditionalGeneration

    return DiffLMMConfig, DiffLMMForConditionalGeneration


def _placed(parts: Parts, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The weights under our names, every one of them in the place of its shape."""
    places = {_renamed(name, parts.names): name for name in shapes}
    weights = {name: weight for name, weight in parts.weights.items() if not name.endswith(COMPUTED)}
    empty = {theirs for theirs, ours in places.items() if theirs not in weights and not parts.may_lack(ours)}
    complain(parts.what, sorted(empty), sorted(weights.keys() - places.keys()))
    state = {}
    for name, weight in weights.items():
        shape = shapes[places[name]]
        if weight.ndim == 4 and len(shape) == 2:  # a 1 x 1 convolution is a linear layer
            weight = weight.flatten(1)
        if weight.shape != shape:
            raise ValueError(f"{parts.what}: {name} is {list(weight.shape)}, its config.json says {list(shape)}.")
        state[places[name]] = weight
    return state


def _make_room_for_the_image(config: LlavaConfig, state: dict[str, Tensor]) -> None:
    """A row for the image's token, which stands in the prompt where the image's features go and is never generated."""
    vocabulary = config.text_config.vocab_size
    n_more = max(0, config.image_token_id + 1 - vocabulary)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        state[name] = F.pad(state[name], (0, 0, 0, n_more))
    config.text_config.vocab_size = vocabulary + n_more
