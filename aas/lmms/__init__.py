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
    from transformers import AutoConfig, AutoModelForImageTextToText

    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it too

    source, revision = model_source(model_id, "lmm")
    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
    except OSError as error:
        raise not_found("model", model_id, error) from error
    family = registry.load(registry.LMM_FAMILIES, config.model_type, "LMM family")
    if dtype is None:
        dtype = torch.bfloat16 if device.startswith("cuda") and model_id != "embedded" else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(source, revision=revision, dtype=dtype).to(device)
    return family(model, family.load_processor(source, revision), model_id)
