"""What a run of `aas segment` stored of an image, and what is true of it, as things that can be drawn."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aas import rle
from aas.datasets.sources import read_json
from aas.geometry import deepest_xy
from aas.metrics.pairing import greedy_pairs, iou_matrix
from aas.photographs import File
from aas.records import Answer, GroundedPhrase, Phrase
from aas.rle import Rle
from aas.spellings import id_text
from aas.store.instances import InstanceResult
from aas.store.keys import whole_name
from aas.store.photographs import Folder, image_file
from aas.store.results import Result
from aas.view import mask_sheet
from aas.view.sharing import Thing

PAIR_FROM_IOU = 0.1  # masks that overlap less are not of one thing
Points = Sequence[tuple[int, int, int]]  # x, y, and 1 = on the thing, 0 = not on it


class Truths:
    """Ground-truth masks by image id, of a COCO or GranD-f annotation; none where it has no masks. `file_names` of its
    images by `id_text`."""

    def __init__(self, annotation: Path | None):
        self.annotation = annotation
        content: Any = read_json(annotation) if annotation else {}
        self.file_names = {id_text(entry["id"]): entry.get("file_name") for entry in content.get("images", [])}
        self.categories = {entry["id"]: entry["name"] for entry in content.get("categories", [])}
        self.ids = {Path(str(name)).stem: key for key, name in self.file_names.items() if name}
        self.by_image: dict[str | None, list[dict[str, Any]]] = {}
        for entry in content.get("annotations", []):
            if entry.get("segmentation"):
                self.by_image.setdefault(id_text(entry["image_id"]), []).append(entry)

    def of(self, image_id: str | int, size_hw: tuple[int, int]) -> list[GroundedPhrase] | None:
        """The true masks of an image of `size_hw` pixels, by its id or its file's name; None where it has none."""
        own, by_name = id_text(image_id), self.ids.get(str(image_id))
        entries = self.by_image.get(own) or self.by_image.get(by_name)
        if entries is None:
            return None
        shown = []
        for entry in entries:
            name = entry.get("caption") or self.categories.get(entry.get("category_id"), "thing")
            mask = rle.decoded(rle.compressed(entry["segmentation"], size_hw))
            if mask.any():
                shown.append(grounded(str(name), (0, 0), mask, 1.0, ()))
        return shown


def grounded(
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


def photograph_file(
    item: Result | InstanceResult, key: str, folder: Folder, file_names: Mapping[str | None, str | None]
) -> File:
    """The photograph in `folder` that the result of this key is about; `file_names`: of images by `id_text`."""
    told = item.image if isinstance(item, Result) else None
    return image_file(folder, whole_name(key, item.image_id), told or file_names.get(id_text(item.image_id)))


def answer_of(item: Result | InstanceResult) -> Answer:
    """Its question and its words, whose tokens are not stored."""
    return Answer(item.question if isinstance(item, Result) else "", item.caption, (), ())


def found_in(item: Result | InstanceResult, path: Path, size_hw: tuple[int, int]) -> list[GroundedPhrase]:
    """What was found in an image of `size_hw` pixels, without maps; ValueError, which names `path`, where the result is
    of another size."""
    rows = _rows(item)
    if any(tuple(row[2]["size"]) != size_hw for row in rows):
        raise ValueError(f"{path} is about an image of another size than the photograph.")
    return [grounded(text, span, rle.decoded(mask), score, points) for text, span, mask, score, points in rows]


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
    own = [Thing((i,), i) for i in range(len(truth))]
    ious = ious_of(predicted, shown, truth, own)
    return mask_sheet.Truth(truth, coloured_as(shown, own, ious), ious.max(axis=1, initial=0.0).tolist())


def ious_of(
    predicted: Sequence[GroundedPhrase],
    shown: Sequence[Thing],
    others: Sequence[GroundedPhrase],
    other_things: Sequence[Thing],
) -> np.ndarray:
    """float64 [things, other things]."""
    return iou_matrix(
        [rle.of_mask(predicted[thing.phrases[0]].mask) for thing in shown],
        [rle.of_mask(others[thing.phrases[0]].mask) for thing in other_things],
    )


def coloured_as(shown: Sequence[Thing], others: Sequence[Thing], ious: np.ndarray) -> list[Thing]:
    """The `others` in the colours of the things that they are paired with, or in ones of their own."""
    colours = {other: shown[one].colour for one, other, iou in greedy_pairs(ious) if iou >= PAIR_FROM_IOU}
    further = itertools.count(len(shown))
    return [Thing(one.phrases, colours[i] if i in colours else next(further)) for i, one in enumerate(others)]
