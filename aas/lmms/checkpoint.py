"""Checkpoint folders: their files are found, and known to be whole, before anything is loaded."""

import json
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

INDEX = ".index.json"  # lists the shards of the file that it is named after
MODEL_FILES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: the first of MODEL_FILES that is there, or the shards that it lists.

    Raises FileNotFoundError or ValueError where one is missing, damaged or cut off. No weight is read.
    """
    name = next((name for name in MODEL_FILES if (folder / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(f"{folder} has no weights: there is none of {', '.join(MODEL_FILES)}.")
    files = [folder / name]
    if name.endswith(INDEX):
        files = [folder / shard for shard in _shards(folder / name)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of {len(files)} weight files are missing ({', '.join(missing[:3])}"
                f"{', …' if len(missing) > 3 else ''}): get them again."
            )
    for file in files:
        _check_whole(file)
    return files


def _shards(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError) as error:
        raise ValueError(f"{index} is damaged, it lists no weights ({error!r}): get the file again.") from error


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
