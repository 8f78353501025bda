"""Where the files that ship with the package are."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from aas.loading import in_short
from aas.model_files import check_settings


def embedded_dir(name: str) -> Path:
    """Folder of an embedded model: `lmm`, `segmenter` or `phrases`.

    `checkpoints/embedded` of a checkout is the package `aas.embedded` of an install (see setup.cfg);
    a checkout on the path without an install is found beside the package.
    """
    checkout = Path(__file__).resolve().parent.parent / "checkpoints" / "embedded"
    root = checkout if checkout.is_dir() else Path(str(files("aas.embedded")))
    folder = root / name
    if not folder.is_dir():
        raise FileNotFoundError(
            f"The embedded {name} is not at {folder}: reinstall attend-and-segment, or train it with scripts/embedded."
        )
    return folder


def model_source(model_id: str, embedded: str) -> tuple[str, str]:
    """What `from_pretrained` takes: (folder or Hugging Face id, revision).

    `model_id` is `embedded` (then the shipped folder of that name), a local folder, an id, or `id@revision`.
    """
    if model_id == "embedded":
        return str(embedded_dir(embedded)), "main"
    if Path(model_id).exists():
        return model_id, "main"
    name, _, revision = model_id.partition("@")
    return name, revision or "main"


def not_found(what: str, model_id: str, error: Exception) -> FileNotFoundError:
    """One sentence for a model that is neither here nor to be had."""
    return FileNotFoundError(
        f"No {what} {model_id!r}: give `embedded`, a folder, or a Hugging Face id that is in the cache or can be "
        f"downloaded. ({in_short(error)})"
    )


def model_config(source: str, revision: str, what: str, model_id: str) -> dict[str, Any]:
    """config.json as it is: transformers does not know every type that is in the registry.

    `what` (model, segmenter) is for the errors.
    """
    from transformers import PreTrainedConfig

    if Path(source).exists() and not (Path(source) / "config.json").is_file():
        raise FileNotFoundError(f"{source} is no {what}: it has no config.json.")
    check_settings(Path(source))
    try:
        config, _ = PreTrainedConfig.get_config_dict(source, revision=revision)
    except OSError as error:
        raise not_found(what, model_id, error) from error
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        raise ValueError(f"The config.json of the {what} {model_id!r} names no model_type: get the file again.")
    return config
