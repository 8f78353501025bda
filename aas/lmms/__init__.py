"""Large multimodal models, one file for each family."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from aas import registry

if TYPE_CHECKING:
    import torch

    from aas.lmms.base import LMM


def load_lmm(model_id: str, *, device: str | None = None, dtype: "torch.dtype | None" = None) -> "LMM":
    """Load a Hugging Face id, `id@revision`, a local folder, or `embedded`."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

    from aas.paths import embedded_dir

    if model_id == "embedded":
        from aas.lmms import embedded  # noqa: F401  registers the tower

        folder, revision, dtype = str(embedded_dir("lmm")), None, torch.float32  # stored in float16, run in float32
    else:
        folder, _, revision = model_id.partition("@") if not Path(model_id).exists() else (model_id, "", "")
    source: dict[str, Any] = {"revision": revision or "main"}
    try:
        config = AutoConfig.from_pretrained(folder, **source)
    except OSError as error:
        raise FileNotFoundError(
            f"No model {model_id!r}: give `embedded`, a folder, or a Hugging Face id that is in the cache or can be "
            f"downloaded. ({str(error).splitlines()[0]})"
        ) from error
    family = registry.load(registry.LMM_FAMILIES, config.model_type, "LMM family")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or (torch.bfloat16 if device.startswith("cuda") else torch.float32)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype, **source).to(device)
    processor = AutoProcessor.from_pretrained(folder, **source)
    return family(model, processor, model_id)
