"""COCO's instance annotations, and the detections that are held against them."""

from collections.abc import Mapping, Sequence
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
    own_id,
    read_lists,
    score_of,
)
from aas.datasets.sources import name_of, read_json
from aas.rle import Rle
from aas.spellings import id_text, number_of
from aas.store.instances import raw_detections
from aas.store.runs import MERGED, RunFolder
from aas.store.spools import ahead


@dataclass(frozen=True)
class InstanceTruth:
    """`images`: id as text -> (height, width), `names` -> file name; `ids`: as they are; `categories`: id as text ->
    name, `category_ids`: as they are."""

    images: dict[str, tuple[int, int]]
    names: dict[str, str]
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


def read_truth(path: Path, findings: Findings, boxes: bool = False) -> InstanceTruth:
    """COCO's instances; raises ValueError or OSError for a file that has none. `boxes`: of an annotation without a mask
    its box will do."""
    content = read_lists(path, "images", "annotations", "categories")
    images = image_sizes(path, content["images"], findings)
    if not images:
        raise ValueError(f"{path} has no images.")
    categories = _categories(path, content["categories"], findings)
    masks = annotations(content["annotations"], images, findings, boxes)
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
    names = {str(id_text(entry["id"])): name_of(entry, path) for entry in content["images"]}
    return InstanceTruth(images, names, ids, categories, category_ids, masks)


def _categories(path: Path, entries: Sequence[Mapping[str, Any]], findings: Findings) -> dict[str, str]:
    """Id as text -> name; of one without a name its id."""
    categories: dict[str, str] = {}
    for entry in entries:
        key = own_id(path, entry, "a category", categories, findings)
        name = entry.get("name")
        categories[key] = key if name is None else str(name)
    return categories


def read_detections(results: Path, truth: InstanceTruth, findings: Findings) -> list[Instance]:
    """Of a COCO results file, or of a run folder of `aas segment instance`; those of unknown images or categories are
    noted and left out."""
    entries = _entries(results, findings)
    # COCO takes all areas from boxes where the first detection has one, and from masks elsewhere.
    by_box = bool(entries) and isinstance(entries[0], dict) and bool(entries[0].get("bbox"))
    found, unused = [], {}
    for i, entry in enumerate(entries, start=1):
        if problem := _not_usable(entry, truth):
            what, why = problem
            note(findings, what, f"detection {i}: {why}")
            unused[what] = why
        else:
            found.append(_instance(entry, truth, f"detection {i}", by_box, findings))
    if entries and not found:
        raise ValueError(
            f"--results {results}: none of its {len(entries)} detections can be used: {'; '.join(unused.values())}."
        )
    with_detections = {instance.image for instance in found}
    for key in truth.images:
        if key not in with_detections:
            note(findings, "images_without_detections", key)
    return found


def _not_usable(entry: Any, truth: InstanceTruth) -> tuple[str, str] | None:
    """(what is wrong with a detection, where that is), or None."""
    if not isinstance(entry, dict):
        return "unusable_detections", "it is no object"
    if "segmentation" not in entry:
        return "unusable_detections", "it has no segmentation" + (", only a box" if "bbox" in entry else "")
    if id_text(entry.get("image_id")) not in truth.images:
        return "detections_of_unknown_images", f"--gt has no image {entry.get('image_id')!r}"
    if id_text(entry.get("category_id")) not in truth.categories:
        return "detections_of_unknown_categories", f"--gt has no category {entry.get('category_id')!r}"
    return None


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
    for path in ahead(items.values()):
        try:
            entries += raw_detections(path)
        except ValueError as error:
            note(findings, "unreadable_files", f"{path.name}: {error}")
    return entries


def _instance(entry: Mapping[str, Any], truth: InstanceTruth, where: str, by_box: bool, findings: Findings) -> Instance:
    image, category = (str(id_text(entry[key])) for key in ("image_id", "category_id"))
    mask = mask_or_empty(entry["segmentation"], truth.images[image], where, findings)
    box, point = _numbers(entry.get("bbox"), 4), _numbers(entry.get("point"), 2)
    return Instance(
        image,
        category,
        mask,
        float(box[2] * box[3]) if by_box and box else rle.area(mask),
        score_of(entry.get("score"), where, findings),
        (point[0], point[1]) if point else None,
    )


def _numbers(values: Any, n: int) -> list[float]:
    """`values` if they are `n` finite numbers, else nothing."""
    found = [number_of(value) for value in values] if isinstance(values, list) and len(values) == n else []
    return [] if None in found else [number for number in found if number is not None]
