"""What annotation files of COCO's layout share: their images, their masks, and what is wrong with either."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas import rle
from aas.datasets.sources import read_json
from aas.rle import Rle, side_of
from aas.spellings import MAX_EXACT, flag_of, id_of, id_text, number_of

Findings = dict[str, list[str]]  # what is wrong -> where
NO_ID = ""  # no id as text is empty


@dataclass(frozen=True)
class TrueAnnotation:
    """`image`, `category`: ids as text (`aas/spellings.py`), NO_ID for a category without one; `id`: a whole number,
    text or None; `area` in pixels, as the file says it; `is_box`: the mask is that of its box, none was drawn."""

    image: str
    category: str
    id: int | str | None
    rle: Rle
    area: float
    is_crowd: bool
    is_box: bool = False


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
    keys = {id_of(value) for value in ids}
    if not any(isinstance(value, str) for value in ids):
        return [str(key) for key in sorted(keys)]  # type: ignore[type-var]
    return sorted(map(str, keys))


def own_id(path: Path, entry: Mapping[str, Any], what: str, known: Collection[str], findings: Findings) -> str:
    """The id as text of an entry that is `what`, "an image" or "a category"; ValueError where it has none. One that is
    `known` already is noted."""
    key = id_text(entry.get("id"))
    if key is None:
        raise ValueError(f"{path}: {what} has no id, or {entry.get('id')!r}, which is none.")
    if key in known:
        note(findings, f"duplicate_{what.split()[-1]}_ids", key)
    return key


def image_sizes(path: Path, images: Sequence[Mapping[str, Any]], findings: Findings) -> dict[str, tuple[int, int]]:
    """Id as text -> (height, width), (0, 0) where it is not said, in the order of the file."""
    sizes: dict[str, tuple[int, int]] = {}
    for image in images:
        key = own_id(path, image, "an image", sizes, findings)
        height, width = (side_of(image.get(name)) for name in ("height", "width"))
        sizes[key] = (0, 0) if height is None or width is None else (height, width)
    return sizes


def annotations(
    entries: Sequence[Mapping[str, Any]],
    sizes: Mapping[str, tuple[int, int]],
    findings: Findings,
    boxes: bool = False,
) -> list[TrueAnnotation]:
    """The masks of images that are known, in the order of the file; one that cannot be read is an empty mask. `boxes`:
    of an annotation without a mask its box will do."""
    found: list[TrueAnnotation] = []
    seen: set[int | str] = set()
    for i, entry in enumerate(entries):
        number, image = id_of(entry.get("id")), id_text(entry.get("image_id"))
        where = f"annotation {number}" if number is not None else f"annotation without an id, the {i + 1}th of the file"
        if image is None or image not in sizes:
            note(findings, "annotations_of_unknown_images", where)
            continue
        if number is None:
            note(findings, "annotations_without_an_id", where)
        elif number in seen:
            note(findings, "duplicate_annotation_ids", number)
        else:
            seen.add(number)
        found.append(_annotation(entry, number, image, sizes[image], where, findings, boxes))
    return found


def _outline_of_box(entry: Mapping[str, Any]) -> list[float] | None:
    """Its `bbox` [x, y, width, height] as a polygon; None where it has none that can be one."""
    values = entry.get("bbox")
    found = [number_of(value) for value in values] if isinstance(values, list) else []
    numbers = [float(value) for value in found if value is not None]
    if len(found) != 4 or len(numbers) != 4 or min(numbers[2:]) <= 0:
        return None
    x, y, width, height = numbers
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def _annotation(
    entry: Mapping[str, Any],
    number: int | str | None,
    image: str,
    size_hw: tuple[int, int],
    where: str,
    findings: Findings,
    boxes: bool,
) -> TrueAnnotation:
    outline = _outline_of_box(entry) if boxes and not entry.get("segmentation") else None
    segmentation = entry.get("segmentation") if outline is None else [outline]
    mask = mask_or_empty(segmentation, size_hw, f"{where} of image {image}", findings)
    area = _said(entry, "area", number_of, where, findings)
    category = id_text(entry.get("category_id", 1))
    return TrueAnnotation(
        image,
        NO_ID if category is None else category,
        number,
        mask,
        rle.area(mask) if area is None else area,
        bool(_said(entry, "iscrowd", flag_of, where, findings)),
        outline is not None,
    )


def _said(
    entry: Mapping[str, Any], key: str, read: Callable[[Any], Any], where: str, findings: Findings
) -> float | bool | None:
    """The value of a key that need not be there; None where it is not, or (which is noted) cannot be read."""
    value = entry.get(key)
    found = read(value)
    if found is None and value is not None:
        note(findings, "unreadable_values", f"{where}: {key} is {value!r}")
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
    ids = [one.id for one in annotations if isinstance(one.id, int) and abs(one.id) < MAX_EXACT]
    return ids if len(ids) == len(annotations) else list(range(1, len(annotations) + 1))


def score_of(value: Any, where: str, findings: Findings) -> float:
    """A score, or 0 where there is none or (which is noted) none that can be read."""
    score = number_of(value)
    if score is not None:
        return float(score)
    if value is None:
        note(findings, "masks_without_a_score", where)
    else:
        note(findings, "unreadable_values", f"{where}: its score is {value!r}")
    return 0.0
