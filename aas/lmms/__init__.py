"""Large multimodal models, one file for each family."""

from typing import TYPE_CHECKING

from aas import registry
from aas.paths import model_source, not_found

if TYPE_CHECKING:
    import torch

    from aas.lmms.base import LMM


def load_lmm(model_id: str, device: str = "cpu", dtype: "torch.dtype | None" = None) -> "LMM":
    """Load `embedded`, a local folder, a Hugging Face id or `id@revision`.

    `dtype` is bfloat16 on a GPU and float32 on a CPU unless given; the embedded model always runs in float32.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it too

    source, revision = model_source(model_id, "lmm")
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
    except OSError as error:
        raise not_found("model", model_id, error) from error
    except ValueError as error:
        model_type = PreTrainedConfig.get_config_dict(source, revision=revision)[0].get("model_type")
        if model_type in CONFIG_MAPPING:
            raise
        raise registry.unknown_lmm(str(model_type), "this version of transformers does not know it either") from error
    family = _family(config.model_type)
    processor = family.load_processor(source, revision)  # it may refuse the model, before the weights are loaded
    if dtype is None:
        dtype = torch.bfloat16 if device.startswith("cuda") and model_id != "embedded" else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, revision=revision, dtype=dtype).to(device)
    return family(model, processor, model_id)


def _family(model_type: str) -> "type[LMM]":
    if model_type in registry.LMM_REFUSED:
        raise ValueError(f"Models of type {model_type!r} are refused: {registry.LMM_REFUSED[model_type]}.")
    families = {model_type: registry.LMM_FALLBACK} | registry.LMM_FAMILIES
    return registry.load(families, model_type, "LMM family")
