"""Large multimodal models, one file for each family."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aas import registry
from aas.devices import torch_device, torch_dtype
from aas.lmms.adapters import adapter_settings, merged
from aas.loading import loading
from aas.model_files import ADAPTER_FILES, weight_files
from aas.paths import model_config, model_source

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, ProcessorMixin

    from aas.lmms.base import LMM

DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential", "disk")  # that are no devices


def load_lmm(
    model: "str | Path | PreTrainedModel | LMM",
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype" = "auto",
    *,
    processor: "ProcessorMixin | None" = None,
    base: str | None = None,
    adapter: str | None = None,
    quantize: str | None = None,
    device_map: "str | dict[str, Any] | None" = None,
) -> "LMM":
    """Load `embedded`, a local folder, a Hugging Face id or `id@revision`; or take a model that is loaded.

    `device`: None takes a GPU if there is one. `dtype`: bfloat16, float16, float32 (or torch's own), or auto: bfloat16
    on a GPU that has it, float16 on an older one, float32 on a CPU; the embedded model always runs in float32. `base`:
    the base LLM of a LoRA checkpoint in LLaVA's own format. `adapter`: a peft LoRA to merge. `quantize`: "4bit" or
    "8bit", with bitsandbytes. `device_map`: "auto" and so on, as `from_pretrained` takes it, with accelerate, instead
    of `device`.

    A loaded `PreTrainedModel`, also inside a `PeftModel`, stays as it is and where it is: none of these goes with it,
    only its `processor`, which is looked up by the model's own name if not given. An `LMM` is returned as it is.

    Raises ValueError or FileNotFoundError for what cannot be loaded, before the weights are read if that can be known.
    """
    if not isinstance(model, str | Path):
        from aas.lmms.loaded import of_loaded

        given: dict[str, object] = {"device": device, "dtype": None if dtype == "auto" else dtype, "base": base}
        return of_loaded(model, processor, given | {"adapter": adapter, "quantize": quantize, "device_map": device_map})
    if processor is not None:
        raise ValueError(f"processor= goes with a loaded model; {str(model)!r} is loaded with its own: leave it out.")
    if quantize is not None and adapter is not None:
        raise ValueError("--adapter is merged into the weights, which --quantize rounds: give one of them.")
    from aas.lmms import embedded  # noqa: F401  registers the embedded tower, for folders trained from it too

    options, place = _placing(device, device_map)
    options["dtype"] = torch_dtype("float32" if model == "embedded" else dtype, place)
    if quantize is not None:
        options = {"device_map": {"": place}} | options | _quantization(quantize, options["dtype"])
    return _loaded(str(model), base, adapter, options, place)


def _loaded(name: str, base: str | None, adapter: str | None, options: dict[str, Any], place: "torch.device") -> "LMM":
    """`options`: those of `from_pretrained`; without a device map among them the model goes to `place`."""
    with loading("model", name):
        source, revision = model_source(name, "lmm")
        family = registry.lmm_family(model_config(source, revision, "model", name))
        if adapter is not None and find_spec("peft") is None:
            raise ValueError('--adapter needs peft: pip install "attend-and-segment[train]"')
        settings = None if adapter is None else adapter_settings(adapter)
        if adapter is not None and Path(adapter).is_dir():
            weight_files(Path(adapter), ADAPTER_FILES)
        model, processor = family.load(source, revision, base, **options)
        if adapter is not None and settings is not None:
            model = merged(model, adapter, settings)
        lmm: LMM = family(model if "device_map" in options else model.to(place), processor, name)
    lmm.loaded_as = "" if adapter else name
    lmm.check_prompt()
    return lmm


def _placing(
    device: "str | torch.device | None", device_map: str | dict[str, Any] | None
) -> "tuple[dict[str, Any], torch.device]":
    """What `from_pretrained` takes to place the model, and the device that decides its dtype."""
    if device_map is None:
        return {}, torch_device(device)
    if device is not None:
        raise ValueError("device= and device_map= both say where the model goes: give one of them.")
    _need("device_map=", "accelerate")
    for place in device_map.values() if isinstance(device_map, dict) else [device_map]:
        if place not in DEVICE_MAPS:
            torch_device(place)
    return {"device_map": device_map}, torch_device(None)


def _need(what: str, *packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ValueError(f"{what} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def _quantization(quantize: str, dtype: "torch.dtype") -> dict[str, Any]:
    """What `from_pretrained` takes so that weights are rounded while they are loaded, which it does on the device."""
    from transformers import BitsAndBytesConfig

    if quantize not in ("4bit", "8bit"):
        raise ValueError(f"Unknown quantization {quantize!r}. Known: 4bit, 8bit.")
    _need("--quantize", "bitsandbytes", "accelerate")
    if quantize == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config}
