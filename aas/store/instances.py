"""The results of `aas segment instance`: the detections of one image as JSON (docs/formats.md). Nothing else knows the
keys of these files."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas import rle
from aas.rle import Rle
from aas.spellings import id_text
from aas.store import values
from aas.store.atomic import write_text
from aas.store.results import ImageId, PointXY, as_lists, check_one_size, loaded, naming
from aas.store.values import Check


@dataclass(frozen=True)
class Detection:
    """An instance of a category; `point_xy` its prompt, `area` in pixels."""

    image_id: ImageId
    category_id: int | str
    category_name: str
    noun_phrase: str
    segmentation: Rle
    score: float
    area: int
    point_xy: PointXY
    iscrowd: int = 0


@dataclass(frozen=True)
class InstanceResult:
    """The detections of one image. `left_out`: phrases of less confidence than was asked for; None: none was."""

    image_id: ImageId
    caption: str
    detections: tuple[Detection, ...]
    left_out: tuple[str, ...] | None = None


def write_instances(path: Path, result: InstanceResult) -> None:
    """One JSON object on one line. The same result gives the same bytes."""
    detections = [detection_json(detection) for detection in result.detections]
    content: dict[str, Any] = {"image_id": result.image_id, "caption": result.caption, "detections": detections}
    if result.left_out is not None:
        content["left_out"] = list(result.left_out)
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def detection_json(detection: Detection) -> dict[str, Any]:
    """An entry of a COCO results list, without `id`, which is given when all images are merged."""
    return {key: as_lists(getattr(detection, field)) for key, (field, _) in _DETECTION.items()}


def read_instances(path: Path) -> InstanceResult:
    """Raises ResultError for what is no file of `aas segment instance`, or damaged."""
    with naming(path):
        return _instances(loaded(path))


def raw_detections(path: Path) -> list[Any]:
    """The list of detections as it lies in a file; nothing else is checked. Raises ValueError, without its name."""
    return _detections(loaded(path))


def _detections(content: Any) -> list[Any]:
    if not isinstance(content, dict) or not isinstance(content.get("detections"), list):
        raise ValueError("no object with a list of detections")
    return content["detections"]


_DETECTION: dict[str, tuple[str, Check]] = {  # key -> field of Detection and what it must be
    "image_id": ("image_id", values.an_id),
    "category_id": ("category_id", values.an_id),
    "category_name": ("category_name", values.text),
    "noun_phrase": ("noun_phrase", values.text),
    "segmentation": ("segmentation", values.mask),
    "score": ("score", values.number),
    "iscrowd": ("iscrowd", values.flag_number),
    "area": ("area", values.index),
    "point": ("point_xy", values.point_xy),
}


def _instances(content: Any) -> InstanceResult:
    entries = _detections(content)
    result = InstanceResult(
        values.named("image_id", content.get("image_id"), values.an_id),
        values.named("caption", content.get("caption"), values.text),
        tuple(values.named(f"detection {i}", entry, _detection) for i, entry in enumerate(entries, start=1)),
        values.column("left_out", content["left_out"], values.text) if "left_out" in content else None,
    )
    if any(id_text(detection.image_id) != id_text(result.image_id) for detection in result.detections):
        raise ValueError("a detection is about another image")
    check_one_size([detection.segmentation for detection in result.detections])
    for i, detection in enumerate(result.detections, start=1):
        if detection.area != (pixels := rle.area(detection.segmentation)):
            raise ValueError(f"detection {i}: its area is {detection.area}, and its mask has {pixels} pixels")
    return result


def _detection(entry: Any) -> Detection:
    if not isinstance(entry, dict) or not _DETECTION.keys() <= entry.keys():
        raise ValueError(f"no object with {', '.join(_DETECTION)}")
    return Detection(**{field: values.named(key, entry[key], check) for key, (field, check) in _DETECTION.items()})
