"""Attention items: what one image's answer and maps are on disk (docs/formats.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from aas.records import Answer, AttentionMaps, View
from aas.store.atomic import write_bytes
from aas.store.keys import ATTENTION_SUFFIX, is_cut, unquoted

SCHEMA = "1"
SUFFIX = ATTENTION_SUFFIX


class ItemError(ValueError):
    """A file is no attention item, or is damaged; the message names it."""


@dataclass(frozen=True)
class AttentionItem:
    """One image's answer and maps. `image`: its path relative to the folder of images; `image_hw` in pixels, upright;
    `reduction`: which layers and heads, and what became of them; `phrase_maps` float32 [phrases, h, w] where phrases
    were grounded."""

    image: str
    image_hw: tuple[int, int]
    answer: Answer
    attention: AttentionMaps
    model: str = ""
    tokenizer: str = ""
    reduction: dict[str, Any] = field(default_factory=dict)
    phrase_maps: np.ndarray | None = None


def write_item(path: Path, item: AttentionItem) -> None:
    """One safetensors file. The same item gives the same bytes."""
    tensors = {
        "maps": item.attention.maps,
        "token_ids": np.array(item.answer.token_ids, np.int64),
        "token_spans": np.array(item.answer.token_spans, np.int64).reshape(-1, 2),
    }
    if item.phrase_maps is not None:
        tensors["phrase_maps"] = item.phrase_maps
    view = item.attention.view
    metadata = {
        "schema": SCHEMA,
        **_image_metadata(item.image),
        "image_size_hw": json.dumps(item.image_hw),
        "question": item.answer.question,
        "answer": item.answer.text,
        "model": item.model,
        "tokenizer": item.tokenizer,
        "alignment": item.attention.alignment,
        "reduction": json.dumps(item.reduction),
        "views": json.dumps([{"name": view.name, "size_hw": view.size_hw, "box_xyxy": view.box_xyxy}]),
    }
    write_bytes(path, _ordered(save(tensors, metadata)))


def _image_metadata(image: str) -> dict[str, str]:
    """safetensors takes no name that is not UTF-8: of such a one it has also the percent-encoded bytes."""
    shown = image.encode("utf-8", "backslashreplace").decode()
    return {"image": shown} | ({} if shown == image else {"image_encoded": quote(image, errors="surrogateescape")})


def _image_of(metadata: Mapping[str, str]) -> str:
    encoded = metadata.get("image_encoded")
    return metadata["image"] if encoded is None else unquote(encoded, errors="surrogateescape")


def _ordered(content: bytes) -> bytes:
    """safetensors writes its metadata in an order of chance; here it is sorted."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    text = json.dumps({"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header})
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + content[start:]


def read_item(path: Path) -> AttentionItem:
    """Raises ItemError for what is no item of ours."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        (view,) = json.loads(metadata["views"])
        answer = Answer(
            metadata["question"],
            metadata["answer"],
            tuple(tensors["token_ids"].tolist()),
            tuple(map(tuple, tensors["token_spans"].tolist())),
        )
        attention = AttentionMaps(
            tensors["maps"],
            View(tuple(view["size_hw"]), tuple(view["box_xyxy"]), view["name"]),
            metadata["alignment"],
        )
        _check_maps(attention.maps, len(answer.token_ids))
        height, width = json.loads(metadata["image_size_hw"])
        return AttentionItem(
            _image_of(metadata),
            (height, width),
            answer,
            attention,
            metadata["model"],
            metadata["tokenizer"],
            json.loads(metadata["reduction"]),
            tensors.get("phrase_maps"),
        )
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, AssertionError, OSError) as error:
        raise ItemError(f"{path}: not an attention item, or damaged ({error})") from error


def _check_maps(maps: np.ndarray, n_tokens: int) -> None:
    if maps.ndim < 3 or maps.shape[-3] != n_tokens:
        raise ValueError(f"{n_tokens} tokens have maps of shape {list(maps.shape)}")
    if not np.isfinite(maps).all():
        raise ValueError("maps that are not finite numbers")


def safetensors_image(path: Path) -> str:
    """The image that an item is about: its file's name, or, where that was too long, what the item says."""
    name = path.name.removesuffix(SUFFIX)
    return read_item(path).image if is_cut(name) else unquoted(name)
