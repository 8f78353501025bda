"""peft's LoRAs, merged into the model that they were trained on; those of older transformers too."""

import inspect
import json
import re
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aas.paths import model_source

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor
    from transformers import PreTrainedModel

CONFIG, PREFIX = "adapter_config.json", "base_model.model."
# LoRAs can begin by taking something out of their base. What PiSSA and OLoRA take out follows from the base, and peft
# takes it out again; what these took was drawn, or computed from data.
CHANGED_BASE = ("pissa_niter", "corda", "loftq", "lora_ga")
OF_PEFT = re.compile(r"\.(?:lora_|base_layer\.|token_adapter\.)")  # where a name goes on inside of peft's layers
NOT_TO_BE_MERGED = {
    "alora_invocation_tokens": "it acts only behind certain words",
    "layer_replication": "it makes a model of more layers",
}


def adapter_settings(adapter: str) -> dict[str, Any]:
    """What the adapter_config.json of a folder or an id (`id@revision`) says, before anything else is loaded.

    Raises ValueError or FileNotFoundError for what is no adapter, or one that cannot be merged as it was trained.
    """
    from transformers.utils import cached_file

    source, revision = model_source(adapter, "lmm")
    try:
        path = cached_file(source, CONFIG, revision=revision)
        settings = json.loads(Path(str(path)).read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is not a list of settings")
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"The adapter {adapter} has no {CONFIG} that can be read: {reason}.") from error
    _check(adapter, settings)
    return settings


def _check(adapter: str, settings: dict[str, Any]) -> None:
    began = settings.get("init_lora_weights")
    if isinstance(began, str) and began.lower().startswith(CHANGED_BASE):
        raise ValueError(
            f"The adapter {adapter} was begun with {began}, which changed its base, and how is not in the adapter: "
            "save it with peft's save_pretrained(path_initial_model_for_weight_conversion=...), or merge it where it "
            "was trained and give the whole as --model."
        )
    for key, reason in NOT_TO_BE_MERGED.items():
        if settings.get(key):
            raise ValueError(f"The adapter {adapter} cannot be merged ({key}): {reason}.")


def merged(model: "PreTrainedModel", adapter: str, settings: dict[str, Any]) -> "PreTrainedModel":
    """`model` with the weights of an adapter of these settings added; all of them, or ValueError."""
    from peft import PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    from safetensors import SafetensorError

    source, revision = model_source(adapter, "lmm")
    try:
        weights, settings = _of_today(load_peft_weights(source, device="cpu", revision=revision), settings, model)
        wrapped = PeftModel(model, _config(settings))
        result = set_peft_model_state_dict(wrapped, weights, "default")
        missing = [name for name in result.missing_keys if "default" in name.split(".")]
        lost = sorted({*missing, *result.unexpected_keys})
        if lost:
            raise ValueError(f"{len(lost)} weights differ, as {lost[0]}")
        return wrapped.merge_and_unload()
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, SafetensorError, re.error) as error:
        reason = " ".join(str(error).split())[:400].rstrip(".")
        if isinstance(error, KeyError | TypeError):
            reason = f"it lacks {reason}" if isinstance(error, KeyError) else f"its settings are damaged ({reason})"
        raise ValueError(f"The adapter {adapter} does not fit the model: {reason}.") from error


def _config(settings: dict[str, Any]) -> "PeftConfig":
    """peft's own; ValueError for a setting that it would ignore."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = settings["peft_type"]
    if kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueError(f"peft {version('peft')} has no adapter of type {kind!r}")
    known = inspect.signature(PEFT_TYPE_TO_CONFIG_MAPPING[kind]).parameters
    unknown = sorted(key for key, value in settings.items() if key not in known and value)
    if unknown:
        raise ValueError(f"peft {version('peft')} does not know its {', '.join(unknown)}: upgrade peft")
    config = PeftConfig.from_peft_type(**{key: value for key, value in settings.items() if key in known})
    if config.is_prompt_learning:
        raise ValueError("it puts tokens before the prompt instead of changing weights: it cannot be merged")
    config.inference_mode = True
    return config


def _of_today(
    weights: dict[str, "Tensor"], settings: dict[str, Any], model: "PreTrainedModel"
) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """Weights and settings under the names that this transformers has for the model's modules.

    Where names were others, and where no target modules are given, those that the weights name are the targets.
    """
    name_of = _names_of_today(model)
    found = {_plain(key): weight for key, weight in weights.items()}
    renamed = {key: _renamed(key, name_of) for key in found}
    if len({*renamed.values()}) < len(weights):
        raise ValueError("several of its weights have one name")
    targets = sorted({key.partition(".lora_")[0] for key in renamed.values() if ".lora_" in key})
    settings = {"peft_type": "LORA"} | settings
    settings = settings | {"modules_to_save": [name_of(name) for name in settings.get("modules_to_save") or ()] or None}
    is_lora = settings["peft_type"] == "LORA"
    is_former = any(key != name for key, name in renamed.items())
    if is_lora and (is_former or not (settings.get("target_modules") or settings.get("target_parameters"))):
        settings |= {"target_modules": targets, "exclude_modules": None}
        settings |= {"layers_to_transform": None, "layers_pattern": None}
        for key in ("rank_pattern", "alpha_pattern"):
            settings[key] = _patterns_of_today(key, settings.get(key) or {}, name_of, targets)
    return {PREFIX + renamed[key]: weight for key, weight in found.items()}, settings


def _plain(key: str) -> str:
    """Without what peft, torch's wrappers and the adapter's own name add."""
    parts = [part for part in key.split(".") if part not in ("module", "_orig_mod", "_fsdp_wrapped_module")]
    key = ".".join(parts).removeprefix(PREFIX)
    return key.replace(".default.", ".") if ".lora_" in key else key


def _names_of_today(model: "PreTrainedModel") -> Callable[[str], str]:
    """A module's name in this transformers, of that in an older one; of any other text the text itself."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)]
    modules = {name for name, _ in model.named_modules()}

    def of_today(name: str) -> str:
        if name in modules:
            return name
        renamed = rename_source_key(f"{name}.weight", renamings, [])[0].removesuffix(".weight")
        return renamed if renamed in modules else name

    return of_today


def _renamed(key: str, name_of: Callable[[str], str]) -> str:
    """A weight's name with its module's name of today."""
    inside = OF_PEFT.search(key)
    cut = inside.start() if inside else max(0, key.rfind("."))
    return name_of(key[:cut]) + key[cut:]


def _patterns_of_today(
    what: str, patterns: dict[str, Any], name_of: Callable[[str], str], targets: Iterable[str]
) -> dict[str, Any]:
    renamed = {name_of(pattern): value for pattern, value in patterns.items()}
    for pattern in renamed:
        if not any(re.match(rf"(.*\.)?({pattern})$", name) for name in targets):  # as peft matches them
            raise ValueError(f"its {what} {pattern!r} is none of the layers that it has")
    return renamed
