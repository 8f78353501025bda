"""Promptable segmenters, one file for each family."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from aas import registry
from aas.devices import torch_device, torch_dtype
from aas.loading import loading
from aas.paths import model_config, model_source, not_found
from aas.segmenters.base import CONTRACT, Segmenter


def load_segmenter(
    segmenter: str | Path | Segmenter, device: str | torch.device | None = "cpu", dtype: str | torch.dtype = "auto"
) -> Segmenter:
    """Load a segmenter, or take one that is there already as it is.

    `segmenter`: `embedded`, a local folder, a Hugging Face id or `id@revision`, a checkpoint file of segment-anything,
    a name of `SEGMENTERS_BY_NAME`, or `package.module:Class` of your own, which may lie in the working folder; or an
    object with the four names of `aas.segmenters.base.Segmenter`, to which device and dtype say nothing.
    `device`: None is a GPU if there is one. `dtype`: what the image encoder computes in: bfloat16, float16, float32, or
    auto: bfloat16 on a GPU that has it, float16 on an older one, float32 on a CPU, as the embedded segmenter anywhere.
    Raises ValueError or FileNotFoundError for what cannot be loaded as a whole.
    """
    if not isinstance(segmenter, (str, Path)):
        return _checked(segmenter, type(segmenter).__name__)
    name = str(segmenter)
    where = torch_device(device)
    chosen = torch_dtype("float32" if (name, dtype) == ("embedded", "auto") else dtype, where)
    with loading("segmenter", name):
        if registry.names_segmenter_class(name):
            return _checked(_class(name)(where, chosen), name)
        found = _from_checkpoint(name, where, chosen)
    found.loaded_as = name
    return found


def _from_checkpoint(name: str, device: torch.device, dtype: torch.dtype) -> Segmenter:
    if Path(name).is_file():
        from aas.segmenters.sam_original import load_sam_checkpoint

        return load_sam_checkpoint(Path(name), device, dtype)
    source, revision = model_source(name, "segmenter")
    config = model_config(source, revision, "segmenter", name)
    family = registry.load(registry.SEGMENTERS, config.get("model_type", ""), "type of segmenter")
    try:
        return family.from_pretrained(source, revision, device, dtype)
    except OSError as error:
        raise not_found("segmenter", name, error) from error


def _class(name: str) -> Any:
    """The class itself. A module may lie in the working folder, which `python -m` sees and an installed command does
    not; it comes last, and hides nothing."""
    module, attribute = registry.SEGMENTERS_BY_NAME.get(name, name).split(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"The segmenter {name!r} cannot be imported: {error}.") from error


def _checked(segmenter: Any, name: str) -> Segmenter:
    lacking = [part for part in CONTRACT if not hasattr(segmenter, part)]
    if lacking:
        raise ValueError(
            f"{name} is no segmenter: it lacks {', '.join(lacking)}. Give a name, a folder, or what "
            "docs/adding-a-segmenter.md describes."
        )
    return segmenter
