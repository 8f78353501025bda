"""Checkpoint folders: found, or downloaded, and read as a whole or not at all."""

import json
import pickle
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from traceback import walk_tb
from typing import Any

import torch
from httpx import HTTPError
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

# Of a repository on the hub, which may hold the same weights for other frameworks.
CHECKPOINT_FILES = ["*.json", "*.txt", "*.model", "*.safetensors", "*.bin"]
INDEX = ".index.json"  # lists the shards of the file that it is named after
MODEL_FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
LFS = b"version https://git-lfs"  # how a file begins that Git did not get, but only knows where it is
COMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")  # in old checkpoints: no weights, but constants
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
SETTINGS = ("generation_config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json",
            "tokenizer.json", "special_tokens_map.json", "added_tokens.json")  # fmt: skip


def local_folder(what: str, name: str, beside: Path | None = None, only: list[str] = CHECKPOINT_FILES) -> Path:
    """The folder of a local path or of a Hugging Face id (`id@revision`), downloaded if it is not in the cache.

    A relative path is looked for in the folder `beside` first, then next to it. `only`: patterns of files to download.
    """
    near = [] if beside is None else [beside / name, beside.parent / name]
    for folder in (*near, Path(name)):
        if folder.is_dir():
            return folder
    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or "main", allow_patterns=only))
    except (OSError, ValueError, HTTPError) as error:  # a ValueError where the name cannot be an id
        raise FileNotFoundError(
            f"No {what} {name!r}: give a folder, or a Hugging Face id that is in the cache or can be downloaded; a "
            f"download that was interrupted goes on when the command is given again. ({_first_line(error)})"
        ) from error


def check_writable(folder: Path) -> None:
    """The OSError, with the name of `folder`, that writing into it would raise; nothing is left there."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


@contextmanager
def loading(name: str) -> Iterator[None]:
    """ValueError, in one line, for whatever a library raises while the checkpoint `name` is loaded."""
    try:
        yield
    except Exception as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        is_line = isinstance(error, (ValueError, FileNotFoundError)) and not isinstance(error, json.JSONDecodeError)
        if is_line and frame.f_globals.get("__name__", "").startswith("difflmm"):
            raise
        raise ValueError(
            f"The checkpoint {name} cannot be loaded: {type(error).__name__}: {_first_line(error)[:300].rstrip('.')}."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A checkpoint's file. Raises FileNotFoundError or ValueError, which say that the checkpoint is not complete."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: the checkpoint is not complete.")
    check_no_pointer(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}): get the file again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged, it holds no JSON object: get the file again.")
    return content


def check_no_pointer(path: Path) -> None:
    """ValueError for a file that Git LFS has left out."""
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder.")


def need_keys(path: Path, config: Collection[str], keys: Sequence[str]) -> None:
    """ValueError where `config`, read of `path`, lacks some of `keys`."""
    if missing := [key for key in keys if key not in config]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: get the file again.")


def read_weights(folder: Path, names: Sequence[str] = MODEL_FILES) -> dict[str, Tensor]:
    """All tensors by name, of the first of `names` that is there or of the shards that it lists; mapped into memory
    where the format allows it. Nothing is ever unpickled but tensors."""
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(f"{folder} has no weights: there is none of {', '.join(names)}.")
    weights: dict[str, Tensor] = {}
    for file in _shards(folder / name) if name.endswith(INDEX) else [folder / name]:
        weights |= _read(file)
    return weights


def _shards(index: Path) -> list[Path]:
    listed = read_json(index)
    need_keys(index, listed, ("weight_map",))
    files = [index.parent / shard for shard in sorted(set(listed["weight_map"].values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{index.parent}: {len(missing)} of {len(files)} weight files are missing ({_some(missing, 3)}): get them "
            "again."
        )
    return files


def _read(path: Path) -> dict[str, Tensor]:
    check_no_pointer(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is damaged or cut off ({_first_line(error)}): get the file again.") from error


def is_whole(path: Path) -> bool:
    """Whether a file of weights, or of torch.save, is there and not cut off; none of it is read."""
    if path.suffix != ".safetensors":
        return zipfile.is_zipfile(path)
    try:
        with safe_open(path, "pt"):  # compares the size of the file with what its header announces
            return True
    except (SafetensorError, OSError):
        return False


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def check_whole(what: str, missing: list[str], left_over: list[str]) -> None:
    """ValueError where a checkpoint lacks weights or has some that belong nowhere."""
    reasons = [f"{len(missing)} weights are missing: {_some(missing)}"] if missing else []
    reasons += [f"{len(left_over)} have no place: {_some(left_over)}"] if left_over else []
    if reasons:
        raise ValueError(f"{what} is not whole, or not what it says. Of its weights, {'; '.join(reasons)}.")


def _some(names: Any, n: int = 6) -> str:
    names = sorted(names)
    return ", ".join(names[:n]) + (", …" if len(names) > n else "")
