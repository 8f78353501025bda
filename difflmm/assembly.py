"""Tower, language model and tokenizer, put together to a model: every weight in its place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from difflmm.files import COMPUTED, check_whole
from difflmm.processor import IMAGE_TOKEN, make_processor
from difflmm.towers import Tower

TEXT_NAMES = {"model.language_model.": "model."}  # how names begin: in our models, and in a checkpoint of a LLM


@dataclass(frozen=True)
class Parts:
    """What a model is made of. `weights`: of tower and language model, as their checkpoint names them; `names`: how
    our names begin -> how the checkpoint's do; `source`: the checkpoint, as errors call it; `may_lack`: how our names
    begin of weights that need not be there; `generation`: what the checkpoint's generation_config.json says."""

    tower: Tower
    text: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    weights: dict[str, Tensor]
    names: dict[str, str]
    source: str
    may_lack: tuple[str, ...] = ()
    generation: Mapping[str, Any] = field(default_factory=dict)


def assembled(parts: Parts, options: dict[str, Any]) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The model of `parts` and its processor. `options`: of `from_pretrained`. Raises ValueError where weights are
    missing, have no place, or have another shape."""
    tower, image_id = parts.tower, parts.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config_class, model_class = _classes(tower)
    layer = {"vision_feature_layer": tower.feature_layer} if tower.is_clip else {}
    config = config_class(
        vision_config=tower.config,
        text_config=parts.text,
        image_token_index=image_id,
        image_seq_length=tower.n_cells,
        **layer,
    )
    with torch.device("meta"):
        skeleton = model_class(config)
    state = _placed(parts, {name: weight.shape for name, weight in skeleton.state_dict().items()})
    _add_image_row(config, state)
    model, info = model_class.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, **options
    )
    missing = [name for name in info["missing_keys"] if not name.startswith(parts.may_lack)]
    check_whole(parts.source, missing, sorted(info["unexpected_keys"]))
    model.generation_config = _generation_config(parts, image_id)
    processor = make_processor(parts.tokenizer, tower.image_processor, tower.config.patch_size, has_cls=tower.is_clip)
    return model, processor


def _classes(tower: Tower) -> tuple[Any, Any]:
    if tower.is_clip:
        return LlavaConfig, LlavaForConditionalGeneration
    from difflmm.model import DiffLMMConfig, DiffLMMForConditionalGeneration

    return DiffLMMConfig, DiffLMMForConditionalGeneration


def _generation_config(parts: Parts, image_id: int) -> GenerationConfig:
    tokenizer = parts.tokenizer
    ends = parts.generation.get("eos_token_id", getattr(parts.text, "eos_token_id", None))
    ours = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id if ends is None else ends,
        "pad_token_id": tokenizer.pad_token_id,
        "suppress_tokens": [*(parts.generation.get("suppress_tokens") or ()), image_id],
    }
    return GenerationConfig(**{**parts.generation, **ours})


def _placed(parts: Parts, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The weights under our names, every one of them in the place of its shape."""
    places = {renamed(name, parts.names): name for name in shapes}
    weights = {name: weight for name, weight in parts.weights.items() if not name.endswith(COMPUTED)}
    empty = {theirs for theirs, ours in places.items() if theirs not in weights and not ours.startswith(parts.may_lack)}
    check_whole(parts.source, sorted(empty), sorted(weights.keys() - places.keys()))
    return {
        places[name]: _shaped(weight, shapes[places[name]], f"{parts.source}: {name}")
        for name, weight in weights.items()
    }


def _shaped(weight: Tensor, shape: torch.Size, what: str) -> Tensor:
    if weight.ndim == 4 and len(shape) == 2:  # a 1 x 1 convolution is a linear layer
        weight = weight.flatten(1)
    if weight.shape != shape:
        raise ValueError(f"{what} is {list(weight.shape)}, its config.json says {list(shape)}.")
    return weight


def _add_image_row(config: LlavaConfig, state: dict[str, Tensor]) -> None:
    """A row for the image's token, which stands in the prompt where the image's features go and is never generated."""
    vocabulary = config.text_config.vocab_size
    n_more = max(0, config.image_token_id + 1 - vocabulary)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        state[name] = F.pad(state[name], (0, 0, 0, n_more))
    config.text_config.vocab_size = vocabulary + n_more


def renamed(name: str, names: dict[str, str]) -> str:
    """A name of ours as `names` says that it begins in a checkpoint."""
    for ours, theirs in names.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
