"""Which attention items `aas segment` turns into masks, of which images, and under which ids."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from aas.datasets.answers import GivenAnswer
from aas.datasets.coco import Findings, note, read_lists
from aas.datasets.sources import name_of
from aas.photographs import Address, File
from aas.spellings import id_of, id_text
from aas.store import reference, values
from aas.store.attention import SUFFIX, safetensors_image
from aas.store.keys import result_keys
from aas.store.photographs import folder_of, image_file, in_folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentJob:
    """`image_id` as the annotation has it (a string without one); `key` that its result is
    stored under; `item` the attention; `row` the expression that is to be found, if one is given."""

    image_id: str | int
    key: str
    item: Path
    image: File
    row: GivenAnswer | None = None


@dataclass(frozen=True)
class Annotation:
    """A COCO or GranD-f file: its images, and, of COCO, (id, name) of its categories and the ids of those that each
    image holds, by its id, as text (`aas/spellings.py`)."""

    path: Path
    images: list[dict[str, Any]]
    categories: list[tuple[int | str, str]]
    present: dict[str, frozenset[str]]


def read_annotation(path: Path) -> Annotation:
    """Raises ValueError or OSError for a file that is none; what of it cannot be used is passed over and said."""
    content = read_lists(path, "images")
    images = _of_own_ids(content["images"], path)
    present: dict[str, set[str]] = {}
    unused: Findings = {}
    for i, annotation in enumerate(_objects(content, "annotations", path), start=1):
        if "category_id" in annotation:
            image, category = (id_text(annotation.get(key)) for key in ("image_id", "category_id"))
            if image is None or category is None:
                note(unused, "annotations without an image's or a category's id", f"the {i}th of the file")
            else:
                present.setdefault(image, set()).add(category)
    categories = _categories(_objects(content, "categories", path), unused)
    for what, where in unused.items():
        log.warning("%s: %d %s are passed over (%s)", path, len(where), what, where[0])
    return Annotation(path, images, categories, {key: frozenset(ids) for key, ids in present.items()})


def _of_own_ids(images: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Each image once; ValueError for one without an id, and for two of one id, whose results would share a file."""
    found: dict[str | None, dict[str, Any]] = {}
    for entry in images:
        other = found.setdefault(id_text(entry.get("id")), entry)
        if name_of(entry, path) != name_of(other, path):
            names = f"{name_of(other, path)} and {name_of(entry, path)}"
            raise ValueError(f"{path}: two images have the id {entry['id']!r}, {names}; give each its own.")
    return list(found.values())


def _objects(content: Mapping[str, Any], name: str, path: Path) -> list[dict[str, Any]]:
    """A list that need not be there; ValueError where it holds anything else than objects."""
    found = content.get(name) or []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ValueError(f"{path}: its {name} are no list of objects.")
    return found


def _categories(entries: Sequence[Mapping[str, Any]], unused: Findings) -> list[tuple[int | str, str]]:
    found = []
    for entry in entries:
        name = entry.get("name")
        if id_of(entry.get("id")) is None or not isinstance(name, str) or not name.strip():
            note(unused, "categories without an id or a name", str(entry.get("id")))
        else:
            found.append((values.an_id(entry["id"]), name))
    return found


def find_jobs(
    attn: Path, images: Path | Address, annotation: Annotation | None
) -> tuple[list[SegmentJob], list[tuple[str, str]]]:
    """Jobs sorted by key, and (name, reason) of the annotation's images that have no attention item.

    Without an annotation every item is a job, and its image's name without extension (where that is unique) its id.
    """
    items = _items(attn)
    folder = folder_of(images)
    if annotation is None:
        keys = result_keys([PurePosixPath(_with_extension(image, item)) for image, item in items.items()])
        jobs = [
            SegmentJob(key, key, item, in_folder(folder, image))
            for key, (image, item) in zip(keys, items.items(), strict=True)
        ]
        return sorted(jobs, key=lambda job: job.key), []
    by_stem = {str(Path(_with_extension(image, item)).with_suffix("")): image for image, item in items.items()}
    jobs, missing = [], []
    for entry in annotation.images:
        file_name = name_of(entry, annotation.path)
        image = file_name if file_name in items else by_stem.get(str(Path(file_name).with_suffix("")))
        if image is None:
            missing.append((file_name, f"{file_name}: no attention item in {attn}; run `aas infer-attn` for it"))
        else:
            image_id = values.an_id(entry["id"])
            jobs.append(SegmentJob(image_id, str(id_text(image_id)), items[image], in_folder(folder, file_name)))
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


def image_of(job: SegmentJob) -> File:
    """The image's file; of the reference's items the one that has their stem."""
    if not isinstance(job.image, Path):
        return job.image
    return image_file(job.image.parent, job.image.name)


def files_of(job: SegmentJob) -> dict[str, File]:
    """What its result is made of."""
    return {"photograph": image_of(job), "attention": job.item}


def asked_of(jobs: Sequence[SegmentJob], annotation: Annotation | None) -> dict[str, str]:
    """Key -> fingerprint of what decides one result alone: its line of --answers, or, with an annotation, the
    categories that its image may have."""
    if annotation is None:
        return {job.key: job.row.fingerprint for job in jobs if job.row}
    known = json.dumps(annotation.categories)
    present = (sorted(annotation.present.get(job.key, ())) for job in jobs)
    return {
        job.key: sha256(f"{known} {those}".encode()).hexdigest()[:16] for job, those in zip(jobs, present, strict=True)
    }
