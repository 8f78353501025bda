"""Large multimodal models, one file for each family."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from aas import registry
from aas.devices import default_device, torch_dtype
from aas.paths import model_config, model_source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from aas.lmms.base import LMM


def load_lmm(
    model_id: str,
    device: str | None = "cpu",
    dtype: str = "auto",
    *,
    base: str | None = None,
    adapter: str | None = None,
    quantize: str | None = None,
) -> "LMM":
    """Load `embedded`, a local folder, a Hugging Face id or `id@revision`.

    `device`: None takes a GPU if there is one. `dtype`: bfloat16, float16, float32, or auto: bfloat16 on a GPU that
    has it, float16 on an older one, float32 on a CPU; the embedded model always runs in float32. `base`: the base LLM
    of a LoRA checkpoint in LLaVA's own format. `adapter`: a peft LoRA to merge. `quantize`: "4bit" or "8bit", with
    bitsandbytes. Raises ValueError or FileNotFoundError for what cannot be loaded as a whole.
    """
    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it too

    device = device or default_device()
    options: dict[str, Any] = {"dtype": torch_dtype("float32" if model_id == "embedded" else dtype, device)}
    if quantize is not None:
        if adapter is not None:
            raise ValueError("--adapter is merged into the weights, which --quantize rounds: give one of them.")
        options |= _quantization(quantize, device, options["dtype"])
    source, revision = model_source(model_id, "lmm")
    family = _family(_registered_type(source, revision, model_id))
    model, processor = family.load(source, revision, base, **options)
    if adapter is not None:
        model = _merged(model, adapter)
    return family(model if quantize else model.to(device), processor, model_id)


def _registered_type(source: str, revision: str, model_id: str) -> str:
    """The model's type, and that of its tower where the registry asks for it."""
    config = model_config(source, revision, "model", model_id)
    model_type = config.get("model_type", "")
    with_tower = f"{model_type}/{(config.get('vision_config') or {}).get('model_type')}"
    return with_tower if with_tower in registry.LMM_FAMILIES else model_type


def _family(model_type: str) -> "type[LMM]":
    if model_type in registry.LMM_REFUSED:
        raise ValueError(f"Models of type {model_type!r} are refused: {registry.LMM_REFUSED[model_type]}.")
    families = {model_type: registry.LMM_FALLBACK} | registry.LMM_FAMILIES
    return registry.load(families, model_type, "LMM family")


def _quantization(quantize: str, device: str, dtype: "torch.dtype") -> dict[str, Any]:
    """What `from_pretrained` takes so that weights are rounded while they are loaded, which it does on the device."""
    from transformers import BitsAndBytesConfig

    if quantize not in ("4bit", "8bit"):
        raise ValueError(f"Unknown quantization {quantize!r}. Known: 4bit, 8bit.")
    missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
    if missing:
        raise ValueError(f"--quantize needs {' and '.join(missing)}: pip install {' '.join(missing)}")
    if quantize == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def _merged(model: "PreTrainedModel", adapter: str) -> "PreTrainedModel":
    """`model` with the weights of a peft adapter added; all of them, or ValueError."""
    if find_spec("peft") is None:
        raise ValueError("--adapter needs peft: pip install 'aas[train]'")
    from peft import PeftConfig, PeftModel

    source, revision = model_source(adapter, "lmm")
    try:
        wrapped = PeftModel(model, PeftConfig.from_pretrained(source, revision=revision))
        result = wrapped.load_adapter(source, "default", torch_device="cpu", revision=revision)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"The adapter {adapter} does not fit the model: {error}") from error
    lost = sorted({*result.missing_keys, *result.unexpected_keys})
    if lost:
        raise ValueError(f"The adapter {adapter} does not fit the model: {len(lost)} weights differ, as {lost[0]}.")
    return wrapped.merge_and_unload()
