"""The model of a run: what it begins with, what of it is trained, and the whole that is left.

Only what is trained is in a checkpoint: projector, captioner and LoRA are one peft adapter, in both stages.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from difflmm.checkpoint import load_checkpoint
from difflmm.new_models import new_difflmm, new_llava
from difflmm.recipe import Recipe

PROJECTOR = ("multi_modal_projector", "captioner")
LLM = "model.language_model"


def starting_model(recipe: Recipe, dtype: torch.dtype) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """What training begins with; what is new in it is random."""
    if recipe.model is not None:
        return load_checkpoint(recipe.model, dtype=dtype)
    if recipe.encoder == "clip":
        return new_llava(**recipe.new_of(), dtype=dtype)
    parts = recipe.new_of()
    return new_difflmm(parts["llm"], parts["diffusion"], parts.get("clip"), dtype, **(recipe.encoder_options or {}))


def with_adapter(model: LlavaForConditionalGeneration, recipe: Recipe) -> PeftModel:
    """`model`, of which only what the stage trains has gradients, in float32: projector and captioner (with their
    positions), and in stage 2 a LoRA on every linear layer of the LLM."""
    modules = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        target_modules=DUMMY_TARGET_MODULES if recipe.stage == 1 else _linear_layers(model.model.language_model),
        modules_to_save=[name for name in PROJECTOR if name in modules],
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
    )
    adapted = get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def _linear_layers(llm: nn.Module) -> str:
    """A pattern of their names."""
    names = {name.rpartition(".")[2] for name, of in llm.named_modules() if isinstance(of, nn.Linear)}
    return rf"{LLM}\..+\.({'|'.join(sorted(names))})"


def save(
    adapted: PeftModel, processor: LlavaProcessor, out: Path, dtype: torch.dtype, keep_adapter: bool = False
) -> None:
    """The model with what was trained merged into it, and its processor; `config.json`, which makes the folder a model,
    comes last. `keep_adapter`: what was trained also alone, in `out/adapter`."""
    if keep_adapter:
        adapted.save_pretrained(str(out / "adapter"), save_embedding_layers=False)
    model = adapted.merge_and_unload().to(dtype)
    with TemporaryDirectory(dir=out, prefix=".") as part:
        model.save_pretrained(part)
        processor.save_pretrained(part)
        for file in sorted(Path(part).iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(out / file.name)
