"""Files of trained heads: what was trained, and nothing else, with the models that it stands on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedModel

from aas import registry
from aas.heads.features import HeadShape
from aas.heads.head import MaskHead
from aas.store.atomic import write_bytes
from aas.store.ordered import ordered
from aas.store.origin import Origin

SCHEMA = "aas.head/1"


@dataclass(frozen=True)
class HeadFile:
    """What a file says of itself: the kind of head, its shape and settings, and the models that it was trained on."""

    kind: str
    shape: HeadShape
    settings: dict[str, Any]
    lmm: Origin
    segmenter: Origin | None


def save_head(path: Path, head: MaskHead, lmm: Origin, segmenter: Origin | None = None) -> None:
    """Write a head's trained tensors. ValueError where it redraws masks by a segmenter that is not named."""
    if (segmenter is not None) != head.of_segmenter:
        raise ValueError("A head that was made of a segmenter is saved with its name, another without one.")
    said = HeadFile(head.kind, head.shape, head.settings(), lmm, segmenter)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _trained(head).items()}
    metadata = {"schema": SCHEMA, "head": json.dumps(asdict(said), sort_keys=True)}
    write_bytes(path, ordered(save(tensors, metadata)))


def read_head_file(path: Path) -> HeadFile:
    """What a file says of itself; no tensor is read. ValueError for any other file."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("schema") != SCHEMA:
            raise ValueError(f"{path} is no mask head: `aas head train` and `aas head import` write such files.")
        said = json.loads(metadata["head"])
        segmenter = None if said["segmenter"] is None else Origin(**said["segmenter"])
        shape, lmm = HeadShape(**said["shape"]), Origin(**said["lmm"])
        return HeadFile(said["kind"], shape, dict(said["settings"]), lmm, segmenter)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no mask head, or damaged ({error}): get the file again.") from error


def load_head(
    path: Path, lmm: Origin, segmenter: PreTrainedModel | None = None, segmenter_origin: Origin | None = None
) -> MaskHead:
    """The head of a file, in evaluation mode, on the CPU, for this LMM and, where it redraws masks, this segmenter.

    Raises ValueError where it was trained on others, or the file is not whole; OSError where there is none.
    """
    said = read_head_file(path)
    for what, wanted, there in (("LMM", said.lmm, lmm), ("segmenter", said.segmenter, segmenter_origin)):
        if wanted is not None and (there is None or not wanted.is_same(there)):
            raise ValueError(
                f"{path} was trained on the {what} {wanted}, not on {there or 'none'}: give that one, or another head."
            )
    more = {} if said.segmenter is None else {"segmenter": segmenter}
    head: MaskHead = registry.load(registry.MASK_HEADS, said.kind, "mask head")(said.shape, **said.settings, **more)
    with safe_open(path, "pt") as file:
        fill(head, {name: file.get_tensor(name) for name in file.keys()}, str(path))  # noqa: SIM118  it is no dict
    return head.eval()


def fill(head: MaskHead, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put a file's tensors into a head: each that is trained, and no other. ValueError, with their names, otherwise."""
    wanted = _trained(head)
    lacking = sorted(wanted.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - wanted.keys())
    sizes = sorted(one for one in wanted.keys() & tensors.keys() if wanted[one].shape != tensors[one].shape)
    for what, names in (("lacks", lacking), ("holds unknown", unknown), ("holds in other sizes", sizes)):
        if names:
            raise ValueError(f"{name} {what} {len(names)} of the head's tensors, the first is {names[0]}.")
    with torch.no_grad():
        for one, tensor in wanted.items():
            tensor.copy_(tensors[one])


def _trained(head: MaskHead) -> dict[str, Tensor]:
    """The tensors that training changes, running statistics among them."""
    frozen = {name for name, parameter in head.named_parameters() if not parameter.requires_grad}
    return {name: tensor for name, tensor in head.state_dict().items() if name not in frozen}
