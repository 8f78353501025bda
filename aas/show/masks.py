"""`aas show masks`: pictures of what `aas segment` made, beside the ground truth."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from aas.datasets.sources import image_file, read_json
from aas.geometry import deepest_xy
from aas.images import read_image
from aas.records import Answer, GroundedPhrase, Phrase
from aas.store.atomic import written
from aas.store.keys import quoted
from aas.store.runs import RunFolder
from aas.store.status import open_run
from aas.text import harmless
from aas.view import mask_sheet

CONTACT_SHEET = "contact_sheet.png"
MAX_CELLS = 100


def show_masks(
    folder: Path, out: Path, images: Path | None = None, truth: Path | None = None, only: list[str] | None = None
) -> int:
    """Write `NAME.png` for every image of a run of `aas segment`, and a contact sheet; returns the exit code.

    `images`: where the photographs are, from run.json if None. `truth`: a COCO or GranD-f mask annotation, by default
    the run's --ref-anno where that has masks. `only`: ids of the images to show.
    """
    run, description = open_run(folder)
    if not description["command"].startswith("segment"):
        raise ValueError(f"{folder} holds a run of `aas {description['command']}`, which has no masks.")
    inputs = description.get("inputs", {})
    photographs = images or Path(inputs["images"])
    annotation = truth or (Path(inputs["ref_anno"]) if inputs.get("ref_anno") else None)
    truths = Truths(annotation)
    wanted = run.items()
    if only:
        unknown = [name for name in only if name not in wanted]
        if unknown:
            raise ValueError(f"{folder} holds no image {unknown[0]!r}.")
        wanted = {name: wanted[name] for name in only}
    cells: list[Image.Image] = []
    n_failed = 0
    for key, path in tqdm(wanted.items(), unit="image", disable=len(wanted) == 1):
        try:
            picture, cell = _pictures(run, key, path, photographs, truths)
        except (ValueError, OSError) as error:
            n_failed += 1
            tqdm.write(f"failed: {harmless(str(error))}", file=sys.stderr)
            continue
        print(_save(picture, out / f"{quoted(key)}.png"))
        if len(cells) < MAX_CELLS:
            cells.append(cell)
    if len(cells) > 1:
        print(_save(mask_sheet.contact_sheet(cells), out / CONTACT_SHEET))
    return 3 if n_failed else 0


class Truths:
    """Ground-truth masks by image id, of a COCO or GranD-f annotation; none where it has no masks."""

    def __init__(self, annotation: Path | None):
        content: Any = read_json(annotation) if annotation else {}
        self.file_names = {entry["id"]: entry.get("file_name") for entry in content.get("images", [])}
        self.categories = {entry["id"]: entry["name"] for entry in content.get("categories", [])}
        self.by_image: dict[str | int, list[dict[str, Any]]] = {}
        for entry in content.get("annotations", []):
            if entry.get("segmentation"):
                self.by_image.setdefault(entry["image_id"], []).append(entry)

    def of(self, image_id: str | int, size_hw: tuple[int, int]) -> list[GroundedPhrase] | None:
        if image_id not in self.by_image:
            return None
        shown = []
        for entry in self.by_image[image_id]:
            name = entry.get("caption") or self.categories.get(entry.get("category_id"), "thing")
            mask = _decoded(entry["segmentation"], size_hw)
            if mask.any():
                shown.append(_grounded(str(name), (0, 0), mask, 1.0, deepest_xy(mask)))
        return shown


def _decoded(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """Polygons, run lengths as numbers or compressed -> bool [H, W]."""
    height, width = size_hw
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return coco_mask.decode(segmentation).astype(bool)


def _grounded(
    text: str, span: tuple[int, int], mask: np.ndarray, score: float, point_xy: tuple[int, int]
) -> GroundedPhrase:
    return GroundedPhrase(Phrase(text, span, span, ()), np.zeros((1, 1), np.float32), point_xy, mask, score)


def _pictures(
    run: RunFolder, key: str, path: Path, photographs: Path, truths: Truths
) -> tuple[Image.Image, Image.Image]:
    item = json.loads(path.read_text(encoding="utf-8"))
    image = read_image(image_file(photographs, key, item.get("image") or truths.file_names.get(item["image_id"])))
    answer = Answer(item.get("question", ""), item["caption"], (), ())
    predicted = _predicted(item)
    if predicted and predicted[0].mask.shape != image.shape[:2]:
        raise ValueError(f"{path} is about an image of another size than the photograph.")
    truth = truths.of(item["image_id"], image.shape[:2])
    return mask_sheet.draw(image, answer, predicted, truth), mask_sheet.thumbnail(image, predicted, key)


def _predicted(item: dict[str, Any]) -> list[GroundedPhrase]:
    if "detections" in item:
        return [
            _grounded(
                f"{found['category_name']}: {found['noun_phrase']}",
                (0, 0),
                coco_mask.decode(found["segmentation"]).astype(bool),
                found["score"],
                tuple(found["point"]),
            )
            for found in item["detections"]
        ]
    columns = (item[key] for key in ("phrases", "spans", "pred_masks", "scores", "points"))
    return [
        _grounded(text, tuple(span), coco_mask.decode(mask).astype(bool), score, tuple(point))
        for text, span, mask, score, point in zip(*columns, strict=True)
    ]


def _save(picture: Image.Image, target: Path) -> Path:
    with written(target) as temporary:
        picture.save(temporary, format="PNG")
    return target
