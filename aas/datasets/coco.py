"""What annotation files of COCO's layout share: their images, their masks, and what is wrong with either."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas import rle
from aas.datasets.sources import read_json
from aas.rle import Rle, is_side

Findings = dict[str, list[str]]  # what is wrong -> where


@dataclass(frozen=True)
class TrueAnnotation:
    """`image`, `category`: ids as text; `id` as in the file; `area` in pixels, as the file says it."""

    image: str
    category: str
    id: Any
    rle: Rle
    area: float
    is_crowd: bool


def note(findings: Findings, what: str, where: object) -> None:
    """One more place where `what` was wrong."""
    findings.setdefault(what, []).append(str(where))


def read_lists(path: Path, *names: str) -> dict[str, list[dict[str, Any]]]:
    """The named lists of objects of a JSON file; ValueError where one is missing."""
    content = read_json(path)
    for name in names:
        entries = content.get(name) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{path} is no annotation of COCO's layout: it has no list `{name}`.")
    return content  # type: ignore[return-value]


def in_order(ids: Sequence[Any]) -> list[str]:
    """Ids as text, each once, in COCO's order: numbers by value, others as text.

    Detections of equal score rank in the order of their images, so that AP depends on it.
    """
    if all(isinstance(value, int) for value in ids):
        return [str(value) for value in sorted(set(ids))]
    return sorted({str(value) for value in ids})


def image_sizes(path: Path, images: Sequence[Mapping[str, Any]], findings: Findings) -> dict[str, tuple[int, int]]:
    """Id as text -> (height, width), (0, 0) where it is not said, in the order of the file."""
    sizes: dict[str, tuple[int, int]] = {}
    for image in images:
        if not isinstance(image.get("id"), (int, str)):
            raise ValueError(f"{path}: an image has no id.")
        key = str(image["id"])
        if key in sizes:
            note(findings, "duplicate_image_ids", key)
        height, width = (image.get(name) for name in ("height", "width"))
        sizes[key] = (height, width) if is_side(height) and is_side(width) else (0, 0)  # type: ignore[assignment]
    return sizes


def annotations(
    entries: Sequence[Mapping[str, Any]], sizes: Mapping[str, tuple[int, int]], findings: Findings
) -> list[TrueAnnotation]:
    """The masks of images that are known, in the order of the file; one that cannot be read is an empty mask."""
    found, seen = [], set()
    for i, entry in enumerate(entries):
        number = entry["id"] if isinstance(entry.get("id"), (int, str)) else None
        where = f"annotation {number}" if number is not None else f"annotation without an id, the {i + 1}th of the file"
        image = str(entry.get("image_id"))
        if image not in sizes:
            note(findings, "annotations_of_unknown_images", where)
            continue
        if number is None:
            note(findings, "annotations_without_an_id", where)
        elif number in seen:
            note(findings, "duplicate_annotation_ids", number)
        seen.add(number)
        mask = mask_or_empty(entry.get("segmentation"), sizes[image], f"{where} of image {image}", findings)
        area = entry.get("area")
        if not isinstance(area, (int, float)) or not math.isfinite(area):
            area = rle.area(mask)
        category = str(entry.get("category_id", 1))
        found.append(TrueAnnotation(image, category, number, mask, area, bool(entry.get("iscrowd", 0))))
    return found


def mask_or_empty(segmentation: Any, size_hw: tuple[int, int], where: str, findings: Findings) -> Rle:
    """Checked run lengths; of what is no mask, an empty mask of `size_hw`, which is noted."""
    try:
        mask = rle.compressed(segmentation, size_hw)
    except (ValueError, TypeError) as error:
        note(findings, "unreadable_masks", f"{where}: {error}")
        return rle.empty(size_hw)
    if 0 not in size_hw and tuple(mask["size"]) != tuple(size_hw):
        note(findings, "masks_of_another_size_than_their_image", where)
    if not rle.area(mask):
        note(findings, "masks_without_a_pixel", where)
    return mask


def usable_ids(annotations: Sequence[TrueAnnotation]) -> list[int]:
    """Annotation ids for COCO's evaluation: those of the file if all are whole numbers, else 1, 2, …"""
    if all(type(annotation.id) is int and abs(annotation.id) < 2**53 for annotation in annotations):
        return [annotation.id for annotation in annotations]
    return list(range(1, len(annotations) + 1))


def score_of(value: Any, where: str, findings: Findings) -> float:
    """A score, or 0 where there is none."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    note(findings, "masks_without_a_score", where)
    return 0.0
