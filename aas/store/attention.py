"""Attention items: what one image's answer and maps are on disk (docs/formats.md)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import gt
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote, unquote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from aas.choices import Alignment
from aas.maps import DEFAULT
from aas.records import Answer, AttentionMaps, View
from aas.rle import MAX_SIDE
from aas.spellings import number_of
from aas.store.atomic import write_bytes
from aas.store.keys import ATTENTION_SUFFIX, is_cut, unquoted
from aas.store.ordered import ordered
from aas.store.shards import elsewhere

SCHEMA = "1"
BESIDE = "maps."  # before the name of a map source, behind the first
SUFFIX = ATTENTION_SUFFIX
MAX_TOKEN = 2**31 - 1  # what tokenizers take


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
    if item.answer.token_log_probs is not None:
        tensors["token_log_probs"] = np.array(item.answer.token_log_probs, np.float32)
    if item.phrase_maps is not None:
        tensors["phrase_maps"] = item.phrase_maps
    if item.attention.margins is not None:
        tensors["image_margins"] = item.attention.margins
    tensors |= {f"{BESIDE}{name}": maps for name, maps in item.attention.beside.items()}
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
    if item.attention.sources != (DEFAULT,):
        metadata["sources"] = json.dumps(item.attention.sources)
    write_bytes(path, ordered(save(tensors, metadata)))


def _image_metadata(image: str) -> dict[str, str]:
    """safetensors takes no name that is not UTF-8: of such a one it has also the percent-encoded bytes."""
    shown = image.encode("utf-8", "backslashreplace").decode()
    return {"image": shown} | ({} if shown == image else {"image_encoded": quote(image, errors="surrogateescape")})


def _image_of(metadata: Mapping[str, str]) -> str:
    encoded = metadata.get("image_encoded")
    return metadata["image"] if encoded is None else unquote(encoded, errors="surrogateescape")


def read_item(path: Path) -> AttentionItem:
    """Raises ItemError for what is no item of ours."""
    try:
        return _item(*_read(path))
    except FileNotFoundError:
        raise
    except (SafetensorError, LookupError, TypeError, ValueError, AssertionError, OSError, RecursionError) as error:
        raise ItemError(f"{path}: not an attention item, or damaged ({error})") from error


def _read(path: Path) -> tuple[Mapping[str, str], Mapping[str, np.ndarray]]:
    """Metadata and tensors of a file, which may lie in a shard, or at a URL."""
    try:
        with safe_open(path, framework="np") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        content = elsewhere(path)
        if content is None:
            raise
    return _header(content).get("__metadata__", {}), load(content)


def _header(content: bytes) -> dict[str, Any]:
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def _item(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> AttentionItem:
    if metadata.get("schema", SCHEMA) != SCHEMA:
        raise ValueError(f"schema {metadata['schema']}, of another version of aas")
    (view,) = json.loads(metadata["views"])
    (height, width), reduction = json.loads(metadata["image_size_hw"]), json.loads(metadata["reduction"])
    ids, spans, maps = tensors["token_ids"].tolist(), tensors["token_spans"].tolist(), tensors["maps"]
    view = View(tuple(view["size_hw"]), tuple(view["box_xyxy"]), view["name"])
    _check_view(view, (height, width))
    _check_tokens(ids, spans, metadata["answer"])
    _check_maps(maps, len(ids), view.size_hw)
    if (phrase_maps := tensors.get("phrase_maps")) is not None:
        _check_maps(phrase_maps, len(phrase_maps), view.size_hw)
    likely, margins = tensors.get("token_log_probs"), tensors.get("image_margins")
    _check_of_tokens("token_log_probs", likely, len(ids), most=0.0)
    _check_of_tokens("image_margins", margins, len(ids))
    source, *beside = json.loads(metadata.get("sources", f'["{DEFAULT}"]'))
    other_maps = {name: tensors[f"{BESIDE}{name}"] for name in beside}
    for other in other_maps.values():
        _check_maps(other, len(ids), view.size_hw)
    if not isinstance(reduction, dict) or metadata["alignment"] not in get_args(Alignment) or not metadata["image"]:
        raise ValueError("no reduction, no alignment that is known, or no image")
    return AttentionItem(
        _image_of(metadata),
        (height, width),
        Answer(
            metadata["question"],
            metadata["answer"],
            tuple(ids),
            tuple(map(tuple, spans)),
            None if likely is None else tuple(likely.tolist()),
        ),
        AttentionMaps(maps, view, metadata["alignment"], str(source), other_maps, margins),
        metadata["model"],
        metadata["tokenizer"],
        reduction,
        phrase_maps,
    )


def _check_view(view: View, image_hw: tuple[Any, Any]) -> None:
    """ValueError for a grid without cells, or over nothing."""
    if not all(type(side) is int and 0 < side <= MAX_SIDE for side in (*image_hw, *view.size_hw)):
        raise ValueError(f"{view.size_hw} cells over {image_hw} pixels")
    x0, y0, x1, y1 = view.box_xyxy
    if not all(number_of(edge) == edge for edge in view.box_xyxy) or x0 >= x1 or y0 >= y1:
        raise ValueError(f"a view over {view.box_xyxy}")
    if not isinstance(view.name, str):
        raise ValueError(f"a view that is called {view.name!r}")


def _check_tokens(ids: list[Any], spans: list[Any], text: str) -> None:
    if len(ids) != len(spans) or not all(type(number) is int and 0 <= number <= MAX_TOKEN for number in ids):
        raise ValueError("token ids that are none, or not as many as their spans")
    starts, ends = ([span[i] for span in spans] for i in (0, 1))
    are_whole = all(type(place) is int and 0 <= place <= len(text) for place in starts + ends)
    if not are_whole or starts != sorted(starts) or ends != sorted(ends) or any(map(gt, starts, ends)):
        raise ValueError("token spans that do not follow each other through the answer")


def _check_of_tokens(name: str, values: np.ndarray | None, n_tokens: int, most: float = np.inf) -> None:
    if values is not None and (values.dtype != np.float32 or values.shape != (n_tokens,) or not (values <= most).all()):
        raise ValueError(f"{name} that are none, or not as many as tokens")


def _check_maps(maps: np.ndarray, n_maps: int, size_hw: tuple[int, int]) -> None:
    if maps.dtype != np.float32 or maps.ndim < 3 or maps.shape[-3] != n_maps or maps.shape[-2:] != size_hw:
        raise ValueError(f"{n_maps} maps of {size_hw} cells are {maps.dtype} of shape {list(maps.shape)}")
    if not np.isfinite(maps).all():
        raise ValueError("maps that are not finite numbers")


def safetensors_image(path: Path) -> str:
    """The image that an item is about: its file's name, or, where that was too long, what the item says."""
    name = path.name.removesuffix(SUFFIX)
    return read_item(path).image if is_cut(name) else unquoted(name)
