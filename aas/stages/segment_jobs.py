"""Which attention items `aas segment` turns into masks, of which images, and under which ids."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from aas.datasets.answers import GivenAnswer
from aas.datasets.sources import read_json
from aas.store import reference
from aas.store.attention import SUFFIX, safetensors_image
from aas.store.keys import result_keys
from aas.store.photographs import folder_of, image_file


@dataclass(frozen=True)
class SegmentJob:
    """`image_id` as the annotation has it (a string without one); `key` that its result is
    stored under; `item` the attention; `row` the expression that is to be found, if one is given."""

    image_id: str | int
    key: str
    item: Path
    image: Path
    row: GivenAnswer | None = None


@dataclass(frozen=True)
class Annotation:
    """A COCO or GranD-f file: its images, and, of COCO, which categories each of them holds."""

    images: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    present: dict[str | int, frozenset[int]]


def read_annotation(path: Path) -> Annotation:
    """Raises ValueError or OSError for a file that is none."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise ValueError(f"{path} is no COCO or GranD-f annotation: it has no list `images`.")
    present: dict[str | int, set[int]] = {}
    for annotation in content.get("annotations", []):
        if "category_id" in annotation:
            present.setdefault(annotation["image_id"], set()).add(annotation["category_id"])
    return Annotation(
        content["images"], content.get("categories", []), {key: frozenset(ids) for key, ids in present.items()}
    )


def find_jobs(
    attn: Path, images: Path, annotation: Annotation | None
) -> tuple[list[SegmentJob], list[tuple[str, str]]]:
    """Jobs sorted by key, and (name, reason) of the annotation's images that have no attention item.

    Without an annotation every item is a job, and its image's name without extension (where that is unique) its id.
    """
    items = _items(attn)
    folder = folder_of(images)
    if annotation is None:
        keys = result_keys([PurePosixPath(_with_extension(image, item)) for image, item in items.items()])
        jobs = [
            SegmentJob(key, key, item, folder / image) for key, (image, item) in zip(keys, items.items(), strict=True)
        ]
        return sorted(jobs, key=lambda job: job.key), []
    by_stem = {str(Path(_with_extension(image, item)).with_suffix("")): image for image, item in items.items()}
    jobs, missing = [], []
    for entry in annotation.images:
        file_name = str(entry.get("file_name") or f"{entry['id']}.jpg")
        image = file_name if file_name in items else by_stem.get(str(Path(file_name).with_suffix("")))
        if image is None:
            missing.append((file_name, f"{file_name}: no attention item in {attn}; run `aas infer-attn` for it"))
        else:
            jobs.append(SegmentJob(entry["id"], str(entry["id"]), items[image], folder / file_name))
    return sorted(jobs, key=lambda job: job.key), missing


def _items(attn: Path) -> dict[str, Path]:
    """Image (relative path; of the reference's items, which name no extension, the stem) -> item."""
    if not attn.is_dir():
        raise FileNotFoundError(f"--attn {attn}: no such folder.")
    items = {}
    for path in sorted(path for path in attn.iterdir() if path.is_file()):
        if path.suffix == SUFFIX:
            items[safetensors_image(path)] = path
        elif path.suffix == reference.SUFFIX:
            items[reference.image_stem(path)] = path
    if not items:
        raise ValueError(f"--attn {attn}: no attention items (*{SUFFIX}, *{reference.SUFFIX}) in this folder.")
    return items


def _with_extension(image: str, item: Path) -> str:
    """An image as `_items` names it, with an extension: the reference's items name none."""
    return image if item.suffix == SUFFIX else f"{image}{item.suffix}"


def image_of(job: SegmentJob) -> Path:
    """The image's file; of the reference's items the one that has their stem."""
    return image_file(job.image.parent, job.image.name)
