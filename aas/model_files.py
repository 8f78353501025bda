"""Files of models: found, and known to be whole, before anything is loaded."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

INDEX = ".index.json"  # lists the shards of the file that it is named after
INT8_FILE = "model_int8.safetensors"  # see aas.int8
SCALES = ".int8_scales"  # there, behind a tensor's name: its scales
MODEL_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    INT8_FILE,
)
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
SETTINGS = ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json",
           "video_preprocessor_config.json", "tokenizer_config.json", "adapter_config.json", "special_tokens_map.json",
            "added_tokens.json", "chat_template.json", "chat_template.jinja", "merges.txt")  # fmt: skip
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json",
              "sentencepiece.bpe.model")  # fmt: skip
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
LFS = b"version https://git-lfs"  # how a file begins that Git did not get, but only knows where it is


def check_settings(folder: Path) -> None:
    """ValueError for the first of the files beside a model's weights that is damaged: no JSON object, or a pointer of
    Git LFS. What is no folder is not looked at."""
    for name in (*SETTINGS, *TOKENIZERS):
        path = folder / name
        if path.is_file():
            check_no_pointer(path)
            if path.suffix == ".json":
                _check_json(path)


def check_no_pointer(path: Path) -> None:
    """ValueError for a file that Git LFS has left out."""
    with path.open("rb") as file:
        if file.read(len(LFS)) == LFS:
            raise ValueError(f"{path} is a pointer of Git LFS, not the file itself: run `git lfs pull` in its folder.")


def check_pointers(folder: Path) -> None:
    """As `check_no_pointer`, of every file in `folder` and below."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            check_no_pointer(path)


def check_processor(folder: Path, words: bool = True) -> None:
    """FileNotFoundError where a model's folder lacks what makes its inputs of images, and of `words`; what is no folder
    is not looked at."""
    needed = {"image processor": PROCESSORS} | ({"tokenizer": TOKENIZERS} if words else {})
    for what, names in needed.items():
        if folder.is_dir() and not any((folder / name).is_file() for name in names):
            raise FileNotFoundError(
                f"{folder} has no {what}: there is none of {', '.join(names)}. Copy the files from the model that it "
                "was made of, or get it again."
            )


def _check_json(path: Path) -> None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}): get the file again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged, it holds no JSON object but a {type(content).__name__}: get it again.")


def weight_files(folder: Path, names: Iterable[str] = MODEL_FILES) -> list[Path]:
    """The files that hold a checkpoint's weights: the first of `names` that is there, or the shards that it lists.

    Raises FileNotFoundError or ValueError where one is missing, damaged or cut off. No weight is read.
    """
    names = tuple(names)
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise FileNotFoundError(f"{folder} has no weights: there is none of {', '.join(names)}.")
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
    check_no_pointer(index)
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is damaged, it lists no weights ({error!r}): get the file again.") from error


def _check_whole(path: Path) -> None:
    check_no_pointer(path)
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
