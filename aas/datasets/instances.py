"""COCO's instance annotations, and the detections that are held against them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas import rle
from aas.datasets.coco import (
    Findings,
    TrueAnnotation,
    annotations,
    image_sizes,
    mask_or_empty,
    note,
    read_lists,
    score_of,
)
from aas.datasets.sources import read_json
from aas.rle import Rle
from aas.store.instances import raw_detections
from aas.store.runs import MERGED, RunFolder


@dataclass(frozen=True)
class InstanceTruth:
    """`images`: id as text -> (height, width); `ids`: as they are; `categories`: id as text -> name, `category_ids`: as
    they are."""

    images: dict[str, tuple[int, int]]
    ids: list[Any]
    categories: dict[str, str]
    category_ids: list[Any]
    masks: list[TrueAnnotation]


@dataclass(frozen=True)
class Instance:
    """A detection; `point_xy` in pixels, None where the results have none."""

    image: str
    category: str
    rle: Rle
    area: float
    score: float
    point_xy: tuple[float, float] | None


def read_truth(path: Path, findings: Findings) -> InstanceTruth:
    """COCO's instances; raises ValueError or OSError for a file that has none."""
    content = read_lists(path, "images", "annotations", "categories")
    images = image_sizes(path, content["images"], findings)
    if not images:
        raise ValueError(f"{path} has no images.")
    if not all(isinstance(entry.get("id"), (int, str)) for entry in content["categories"]):
        raise ValueError(f"{path}: a category has no id.")
    categories = {str(entry.get("id")): str(entry.get("name", entry.get("id"))) for entry in content["categories"]}
    masks = annotations(content["annotations"], images, findings)
    for mask in masks:
        if mask.category not in categories:
            note(findings, "annotations_of_unknown_categories", f"annotation {mask.id}")
        if mask.id == 0:
            note(findings, "annotations_with_id_0_that_coco_never_finds", "annotation 0")
    with_masks = {mask.image for mask in masks}
    for key in images:
        if key not in with_masks:
            note(findings, "images_without_true_masks", key)
    ids, category_ids = ([entry["id"] for entry in content[name]] for name in ("images", "categories"))
    return InstanceTruth(images, ids, categories, category_ids, masks)


def read_detections(results: Path, truth: InstanceTruth, findings: Findings) -> list[Instance]:
    """Of a COCO results file, or of a run folder of `aas segment instance`; those of unknown images or categories are
    noted and left out."""
    entries = _entries(results, findings)
    # COCO takes all areas from boxes where the first detection has one, and from masks elsewhere.
    by_box = bool(entries) and isinstance(entries[0], dict) and bool(entries[0].get("bbox"))
    found = []
    for i, entry in enumerate(entries, start=1):
        where = f"detection {i}"
        if not isinstance(entry, dict) or "segmentation" not in entry:
            note(findings, "unusable_detections", where)
        elif str(entry.get("image_id")) not in truth.images:
            note(findings, "detections_of_unknown_images", f"{where}: image {entry.get('image_id')}")
        elif str(entry.get("category_id")) not in truth.categories:
            note(findings, "detections_of_unknown_categories", f"{where}: category {entry.get('category_id')}")
        else:
            found.append(_instance(entry, truth, where, by_box, findings))
    if entries and not found:
        raise ValueError(f"--results {results}: none of its {len(entries)} detections is about an image of --gt.")
    with_detections = {instance.image for instance in found}
    for key in truth.images:
        if key not in with_detections:
            note(findings, "images_without_detections", key)
    return found


def _entries(results: Path, findings: Findings) -> list[Any]:
    if results.is_dir():
        if not (results / MERGED).is_file():
            return _of_items(results, findings)
        results = results / MERGED
    content = read_json(results)
    if not isinstance(content, list):
        raise ValueError(f"--results {results} is no COCO results file: it holds no list.")
    return content


def _of_items(folder: Path, findings: Findings) -> list[Any]:
    """Of a run that is not merged: its items' detections."""
    entries: list[Any] = []
    items = RunFolder(folder, ".json").items()
    if not items:
        raise ValueError(f"--results {folder}: no results (*.json) in this folder.")
    for path in items.values():
        try:
            entries += raw_detections(path)
        except ValueError as error:
            note(findings, "unreadable_files", f"{path.name}: {error}")
    return entries


def _instance(entry: Mapping[str, Any], truth: InstanceTruth, where: str, by_box: bool, findings: Findings) -> Instance:
    image = str(entry["image_id"])
    mask = mask_or_empty(entry["segmentation"], truth.images[image], where, findings)
    box, point = _numbers(entry.get("bbox"), 4), _numbers(entry.get("point"), 2)
    return Instance(
        image,
        str(entry["category_id"]),
        mask,
        float(box[2] * box[3]) if by_box and box else rle.area(mask),
        score_of(entry.get("score"), where, findings),
        (point[0], point[1]) if point else None,
    )


def _numbers(values: Any, n: int) -> list[float]:
    """`values` if they are `n` finite numbers, else nothing."""
    if not isinstance(values, list) or len(values) != n:
        return []
    return values if all(isinstance(value, (int, float)) and math.isfinite(value) for value in values) else []
