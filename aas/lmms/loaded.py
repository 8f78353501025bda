"""Models that the caller loaded: their family, and their processor."""

from typing import Any

from transformers import PreTrainedModel, ProcessorMixin

from aas import registry
from aas.lmms.base import LMM


def of_loaded(model: object, processor: ProcessorMixin | None, given: dict[str, object]) -> LMM:
    """The LMM of a `PreTrainedModel` (also of one inside a `PeftModel`) and its processor, or an LMM as it is.

    `given`: arguments for loading, None where not given; ValueError for those that are, as nothing is loaded here, and
    for what is no model that aas can watch.
    """
    is_lmm = isinstance(model, LMM)
    wrong = [name for name, value in {**given, "processor": processor if is_lmm else None}.items() if value is not None]
    if wrong:
        raise ValueError(f"{wrong[0]}= is for a model that aas loads, and this one is loaded already: leave it out.")
    if isinstance(model, LMM):
        return model
    inside = _inside(model)
    family: type[LMM] = registry.lmm_family(inside.config.to_dict())
    if processor is None:
        processor = _processor_of(inside, family)
    if not hasattr(processor, "tokenizer"):
        raise ValueError(
            "processor= is what AutoProcessor.from_pretrained gives, with image processor and tokenizer, "
            f"not a {type(processor).__name__}."
        )
    family.check(inside.config, processor)
    lmm = family(inside, processor, inside.name_or_path or type(inside).__name__)
    lmm.check_prompt()
    return lmm


def _inside(model: Any) -> PreTrainedModel:
    """The model of transformers that does the work."""
    if hasattr(model, "get_base_model"):  # peft's wrapper, whose LoRA layers sit inside the model
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise ValueError("A PeftModel that learns prompts puts tokens before the image: it cannot be watched.")
        model = model.get_base_model()
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            "A model is an id, a folder, a PreTrainedModel of transformers or an LMM of aas, not a "
            f"{type(model).__name__} (of a wrapper give the model inside)."
        )
    if not model.can_generate():
        raise ValueError(
            f"A {type(model).__name__} writes no answers: load the model with AutoModelForImageTextToText."
        )
    return model


def _processor_of(model: PreTrainedModel, family: type[LMM]) -> ProcessorMixin:
    """The processor that lies where the model came from."""
    try:
        if not model.name_or_path:
            raise OSError("it was not loaded from a folder or the hub")
        return family.load_processor(model.name_or_path, getattr(model.config, "_commit_hash", None) or "main")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"The model's processor is not found ({reason}): pass processor=.") from error
