"""COCO's average precision and recall over masks, and what its intervals are resampled from.

One evaluation by pycocotools gives the twelve figures and which detection is right at which threshold.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aas.rle import Rle

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


@dataclass(frozen=True)
class TrueMask:
    """`image` counts from 1 in the order of COCO's image ids; `id` as in the annotation file; `area` in pixels, as the
    file says it."""

    image: int
    category: int
    id: int
    rle: Rle
    area: float
    is_crowd: bool


@dataclass(frozen=True)
class Detection:
    """A mask that was found; `image` counts from 1, `area` in pixels."""

    image: int
    category: int
    rle: Rle
    area: float
    score: float


class Detections:
    """Detections held against true masks, of `n_images` images and the given categories.

    Ids have COCO's meaning: an annotation with id 0 is never found, and of two with one id the later counts for both.
    """

    def __init__(
        self, n_images: int, categories: Sequence[int], true: Sequence[TrueMask], detected: Sequence[Detection]
    ):
        self.categories = sorted(categories)
        frame = {
            "images": [{"id": i, "height": 1, "width": 1} for i in range(1, n_images + 1)],
            "categories": [{"id": category, "name": str(category)} for category in self.categories],
        }
        found = [
            _annotation(TrueMask(d.image, d.category, i, d.rle, d.area, False)) | {"score": d.score}
            for i, d in enumerate(detected, start=1)
        ]
        self._run = _evaluated(
            frame | {"annotations": [_annotation(mask) for mask in true]}, frame | {"annotations": found}
        )

    def figures(self) -> tuple[dict[str, float], list[dict[str, float]]]:
        """COCO's twelve figures, -1 where there is no ground truth of that size, and AP, AP50, AR100 per category."""
        precision, recall = self._run.eval["precision"][..., 0, -1], self._run.eval["recall"][..., 0, -1]
        by_category = [
            {
                "AP": _mean(precision[:, :, k]),
                "AP50": _mean(precision[0, :, k]),
                "AR100": _mean(recall[:, k]),
            }
            for k in range(len(self.categories))
        ]
        return dict(zip(FIGURES, map(float, self._run.stats), strict=True)), by_category

    def evidence(self) -> dict[str, Any]:
        """What AP at all sizes is made of: each detection's image (from 0), category, score, and ten bits (thresholds
        0.5 to 0.95) for right and for not counted; and how many masks there are to find."""
        columns: dict[str, Any] = {name: [] for name in ("image", "category", "score", "right", "ignored")}
        to_find: list[list[int]] = []
        of_all_sizes = self._run.params.areaRng[0]
        for found in self._run.evalImgs:
            if found is None or found["aRng"] != of_all_sizes:
                continue
            where = [int(found["image_id"]) - 1, int(found["category_id"])]
            n_masks = int((np.asarray(found["gtIgnore"]) == 0).sum())
            if n_masks:
                to_find.append([*where, n_masks])
            n = len(found["dtScores"])
            columns["image"] += [where[0]] * n
            columns["category"] += [where[1]] * n
            columns["score"] += [float(score) for score in found["dtScores"]]
            columns["right"] += _bits(np.asarray(found["dtMatches"]) > 0)
            columns["ignored"] += _bits(np.asarray(found["dtIgnore"]) > 0)
        return {"kind": "detections", "to_find": to_find, **columns}


def _evaluated(true: dict[str, Any], detected: dict[str, Any]) -> Any:
    """pycocotools' COCOeval after its three steps; it writes into what it is given."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        parts = [COCO(), COCO()]
        for part, content in zip(parts, (true, detected), strict=True):
            part.dataset = content
            part.createIndex()
        run = COCOeval(*parts, "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def _annotation(mask: TrueMask) -> dict[str, Any]:
    return {
        "id": mask.id,
        "image_id": mask.image,
        "category_id": mask.category,
        "segmentation": mask.rle,
        "area": mask.area,
        "iscrowd": int(mask.is_crowd),
    }


def _bits(flags: np.ndarray) -> list[int]:
    """bool [thresholds, detections] -> one number each, the first threshold lowest."""
    return (flags.T @ (1 << np.arange(len(flags)))).tolist() if flags.size else []


def _mean(values: np.ndarray) -> float:
    """COCO's mean: over what is there (not -1), else -1."""
    there = values[values > -1]
    return float(there.mean()) if there.size else -1.0
