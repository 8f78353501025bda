"""`aas show masks`: pictures of what `aas segment` made, beside the ground truth."""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

from aas import rle
from aas.datasets.sources import read_json
from aas.geometry import deepest_xy
from aas.images import read_image
from aas.metrics.pairing import greedy_pairs, iou_matrix
from aas.progress import bar_for
from aas.records import Answer, GroundedPhrase, Phrase
from aas.rle import Rle
from aas.store.atomic import check_writable, written
from aas.store.instances import InstanceResult
from aas.store.keys import is_cut, quoted
from aas.store.photographs import folder_of, image_file
from aas.store.readers import READERS
from aas.store.results import Result
from aas.store.status import open_run
from aas.text import harmless
from aas.view import mask_sheet
from aas.view.sharing import Thing, things

Pictures = tuple[Image.Image, Image.Image]  # of one image: the whole, and its cell of the contact sheet
CONTACT_SHEET = "contact_sheet.png"
MAX_CELLS = 100
PAIR_FROM_IOU = 0.1  # masks that overlap less are not of one thing
Points = Sequence[tuple[int, int, int]]  # x, y, and 1 = on the thing, 0 = not on it


def show_masks(
    folder: Path, out: Path, images: Path | None = None, truth: Path | None = None, only: list[str] | None = None
) -> int:
    """Write `NAME.png` for every image of a run of `aas segment` or `aas import`, and a contact sheet; returns the exit
    code.

    `images`: where the photographs are, from run.json if None. `truth`: a COCO or GranD-f mask annotation, by default
    the run's --ref-anno where that has masks. `only`: ids of the images to show.
    """
    check_writable(out)
    run, description = open_run(folder)
    if not description["command"].startswith(("segment", "import")):
        raise ValueError(f"{folder} holds a run of `aas {description['command']}`, which has no masks.")
    inputs = description.get("inputs", {})
    photographs = folder_of(images or Path(inputs.get("images") or folder))  # an imported run says where each one is
    annotation = truth or (Path(inputs["ref_anno"]) if inputs.get("ref_anno") else None)
    truths = Truths(annotation)
    wanted = run.items()
    if only:
        unknown = [name for name in only if name not in wanted]
        if unknown:
            raise ValueError(f"{folder} holds no image {unknown[0]!r}.")
        wanted = {name: wanted[name] for name in only}
    read = READERS[description["command"]]
    cells: list[Image.Image] = []
    n_failed = 0
    for key, path in tqdm(wanted.items(), unit="image", **bar_for(len(wanted))):
        try:
            picture, cell = _pictures(key, read(path), path, photographs, truths)
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
        """The true masks of an image of `size_hw` pixels; None where it has none."""
        if image_id not in self.by_image:
            return None
        shown = []
        for entry in self.by_image[image_id]:
            name = entry.get("caption") or self.categories.get(entry.get("category_id"), "thing")
            mask = _decoded(entry["segmentation"], size_hw)
            if mask.any():
                shown.append(_grounded(str(name), (0, 0), mask, 1.0, ()))
        return shown


def _decoded(segmentation: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """Polygons, run lengths as numbers or compressed -> bool [H, W]. ValueError for what is no mask."""
    return coco_mask.decode(rle.compressed(segmentation, size_hw)).astype(bool)


def _grounded(
    text: str,
    span: tuple[int, int],
    mask: np.ndarray,
    score: float,
    points: Points,
) -> GroundedPhrase:
    """`points`: x, y and label; none of a mask prompt, which is marked at its deepest pixel."""
    points = points or [(*deepest_xy(mask), 1)]
    points_xy, labels = tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)
    phrase, no_map = Phrase(text, span, span, ()), np.zeros((1, 1), np.float32)
    return GroundedPhrase(phrase, no_map, points_xy[0], mask, score, points_xy, labels)


def _pictures(key: str, item: Result | InstanceResult, path: Path, photographs: Path, truths: Truths) -> Pictures:
    told = item.image if isinstance(item, Result) else None
    name = str(item.image_id) if is_cut(key) else key
    image = read_image(image_file(photographs, name, told or truths.file_names.get(item.image_id)))
    rows = _rows(item)
    if any(tuple(row[2]["size"]) != image.shape[:2] for row in rows):
        raise ValueError(f"{path} is about an image of another size than the photograph.")
    predicted = [
        _grounded(text, span, _decoded(mask, image.shape[:2]), score, points)
        for text, span, mask, score, points in rows
    ]
    answer = Answer(item.question if isinstance(item, Result) else "", item.caption, (), ())
    truth, shown = truths.of(item.image_id, image.shape[:2]), things(predicted)
    beside = None if truth is None else paired(predicted, shown, truth)
    return mask_sheet.draw(image, answer, predicted, shown, beside), mask_sheet.thumbnail(image, predicted, key)


def _rows(item: Result | InstanceResult) -> list[tuple[str, tuple[int, int], Rle, float, Points]]:
    """Words, their characters in the answer, mask, score and points of everything that was found."""
    if isinstance(item, Result):
        columns = (item.phrases, item.spans, item.pred_masks, item.scores, item.points_shown)
        return list(zip(*columns, strict=True))  # type: ignore[arg-type]  # the reader saw to it that none is None
    return [
        (f"{one.category_name}: {one.noun_phrase}", (0, 0), one.segmentation, one.score, ((*one.point_xy, 1),))
        for one in item.detections
    ]


def paired(
    predicted: Sequence[GroundedPhrase], shown: Sequence[Thing], truth: Sequence[GroundedPhrase]
) -> mask_sheet.Truth:
    """The true masks beside the predicted things: one-to-one pairs, those of the largest IoU first, share a colour."""
    ious = iou_matrix(
        [rle.of_mask(predicted[thing.phrases[0]].mask) for thing in shown], [rle.of_mask(one.mask) for one in truth]
    )
    colours = {true: shown[found].colour for found, true, iou in greedy_pairs(ious) if iou >= PAIR_FROM_IOU}
    further = itertools.count(len(shown))
    own = [Thing((i,), colours[i] if i in colours else next(further)) for i in range(len(truth))]
    return mask_sheet.Truth(truth, own, ious.max(axis=1, initial=0.0).tolist())


def _save(picture: Image.Image, target: Path) -> Path:
    with written(target) as temporary:
        picture.save(temporary, format="PNG")
    return target
