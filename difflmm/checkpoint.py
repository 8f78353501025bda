"""Checkpoints to models, and models to folders in transformers' format: the authors' format and ours.

Every weight has its place, and every place its weight, or there is an error that lists them. diffusers is needed for
DiffLMM only.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from difflmm.files import SETTINGS, check_whole, check_writable, loading, local_folder, read_json, read_weights
from difflmm.original import load_original
from difflmm.towers import need_diffusers

DTYPES = ("float32", "bfloat16", "float16")


def load_checkpoint(
    source: str, base: str | None = None, dtype: torch.dtype | str = "auto", **options: Any
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A model of a folder or Hugging Face id (`id@revision`), in our format or the authors', and its processor.

    `base`: the LLM that a LoRA in the authors' format was trained on. `dtype`: auto is the checkpoint's own. `options`:
    more of `from_pretrained`. Raises ValueError or FileNotFoundError for what cannot be loaded as a whole.
    """
    with loading(source):
        return _loaded(source, base, dtype, options)


def _loaded(
    source: str, base: str | None, dtype: torch.dtype | str, options: dict[str, Any]
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    folder = local_folder("model", source)
    config = read_json(folder / "config.json")
    for name in SETTINGS:  # a damaged one is named, which the libraries do not
        if (folder / name).is_file():
            read_json(folder / name)
    model_type, dtype = config.get("model_type"), _dtype(dtype, config)
    if model_type == "llava_llama":
        return load_original(folder, base, dtype, **options)
    if base is not None:
        raise ValueError(f"{folder} is a whole checkpoint, not a LoRA: leave --base out.")
    if model_type not in ("difflmm", "llava"):
        raise ValueError(f"{folder} is a {model_type!r}, not a DiffLMM or LLaVA.")
    if model_type == "difflmm":
        need_diffusers()
    read_weights(folder)  # mapped into memory, not copied: the files are whole
    model, info = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    if info["mismatched_keys"]:
        name, there, wanted = sorted(info["mismatched_keys"])[0]
        raise ValueError(f"{folder}: {name} has the size {tuple(there)}, by config.json it has {tuple(wanted)}.")
    check_whole(f"The checkpoint {folder}", sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))
    return model, AutoProcessor.from_pretrained(folder)


def _dtype(wanted: torch.dtype | str, config: dict[str, Any]) -> torch.dtype:
    if wanted == "auto":
        wanted = config.get("dtype") or config.get("torch_dtype") or "float32"
    if isinstance(wanted, str) and wanted not in DTYPES:
        raise ValueError(f"Unknown dtype {wanted!r}. Known: auto, {', '.join(DTYPES)}.")
    return getattr(torch, wanted) if isinstance(wanted, str) else wanted


def convert(source: str, out: Path, base: str | None = None, dtype: str = "auto") -> None:
    """Write a checkpoint in transformers' format into the new folder `out`; arguments as for `load_checkpoint`.

    The folder appears when it is complete.
    """
    if out.exists():
        raise FileExistsError(f"{out} is there already: name a folder that is not.")
    check_writable(out.parent)
    model, processor = load_checkpoint(source, base, dtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}.", suffix=".part", dir=out.parent) as part:
        whole = Path(part) / out.name
        model.save_pretrained(whole)
        processor.save_pretrained(whole)
        whole.replace(out)
