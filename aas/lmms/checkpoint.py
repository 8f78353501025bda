"""Checkpoint folders: their files are found, and known to be whole, before anything is loaded."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from aas.paths import model_source, not_found

INDEX = ".index.json"  # lists the shards of the file that it is named after
MODEL_FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def local_folder(what: str, model_id: str, beside: Path | None = None) -> Path:
    """The folder of a local path or of a Hugging Face id (`id@revision`), downloaded if it is not in the cache.

    A relative path is looked for in the folder `beside` first, then next to it.
    """
    near = [] if beside is None else [beside / model_id, beside.parent / model_id]
    for folder in (*near, Path(model_id)):
        if folder.is_dir():
            return folder
    source, revision = model_source(model_id, "lmm")
    try:
        return Path(snapshot_download(source, revision=revision))
    except (OSError, ValueError) as error:  # a ValueError where the name cannot be an id
        raise not_found(what, model_id, error) from error


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: the checkpoint is not complete.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}): get the file again.") from error


def weight_files(folder: Path, names: Sequence[str] = MODEL_FILES) -> list[Path]:
    """The files that hold a checkpoint's weights: the first of `names` that is there, or the shards that it lists.

    Raises FileNotFoundError or ValueError where one is missing, damaged or cut off. No weight is read.
    """
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(f"{folder} has no weights: there is none of {', '.join(names)}.")
    files = [folder / name]
    if name.endswith(INDEX):
        files = [folder / shard for shard in sorted(set(read_json(folder / name)["weight_map"].values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of {len(files)} weight files are missing ({', '.join(missing[:3])}"
                f"{', …' if len(missing) > 3 else ''}): get them again."
            )
    for file in files:
        _check_whole(file)
    return files


def _check_whole(path: Path) -> None:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):  # compares the size of the file with what its header announces
                return
        except SafetensorError as error:
            reason = str(error)
    else:
        with path.open("rb") as file:
            is_old_pickle = file.read(2) == b"\x80\x02"  # torch.save before 1.6; all later ones are zip files
        if is_old_pickle or zipfile.is_zipfile(path):
            return
        reason = "not a file of torch.save"
    raise ValueError(f"{path} is damaged or cut off ({reason}): get the file again.")


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """All tensors by name, mapped into memory where the format allows it. Nothing is ever unpickled but tensors."""
    weights: dict[str, Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            weights |= load_file(file)
        else:
            weights |= torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    return weights
