"""New models, of an LLM and towers: what training begins with."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, LlavaForConditionalGeneration, LlavaProcessor

from difflmm.assembly import TEXT_NAMES, Parts, assembled
from difflmm.files import local_folder, read_weights
from difflmm.processor import tokenizer_with_image
from difflmm.towers import Tower, clip_tower, diffusion_tower

RANDOM = ("model.multi_modal_projector.", "model.vision_tower.captioner.")  # of our names: what no checkpoint has yet


def new_difflmm(
    llm: str, diffusion: str, clip: str | None = None, dtype: torch.dtype = torch.float32, **encoder: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A DiffLMM to be trained: an LLM, a Stable Diffusion and a CLIP, each a folder or Hugging Face id; projector and
    captioner are random. `encoder`: fields of `DiffusionEncoderConfig`. Raises ValueError or FileNotFoundError for what
    cannot be loaded or does not fit together."""
    return _new(llm, diffusion_tower(diffusion, clip, dtype, **encoder), dtype)


def new_llava(
    llm: str, clip: str, dtype: torch.dtype = torch.float32
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A plain LLaVA-1.5 to be trained, likewise."""
    return _new(llm, clip_tower(clip, do_pad=True), dtype)


def _new(llm: str, tower: Tower, dtype: torch.dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    folder = local_folder("LLM", llm)
    text = AutoConfig.from_pretrained(folder)
    weights = {f"model.vision_tower.{name}": weight for name, weight in tower.weights.items()}
    weights |= _llm_weights(folder, text.tie_word_embeddings)
    parts = Parts(tower, text, tokenizer_with_image(folder), weights, TEXT_NAMES, f"The LLM {llm}", may_lack=RANDOM)
    return assembled(parts, {"dtype": dtype})


def _llm_weights(folder: Path, is_tied: bool) -> dict[str, Tensor]:
    """`is_tied`: the output layer has the embeddings' weights."""
    weights = read_weights(folder)
    if is_tied and "model.embed_tokens.weight" in weights:
        weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    return weights
