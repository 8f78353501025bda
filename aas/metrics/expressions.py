"""How well masks of given expressions fit: cIoU, gIoU and precision of referring segmentation, average recall of PNG.

Everything is counted on run lengths; no mask is ever decoded.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco_mask

from aas.rle import Rle

THRESHOLDS = (0.5, 0.7, 0.9)
KINDS = ("things", "stuff", "singular", "plural")


@dataclass(frozen=True)
class Overlap:
    """Pixels that a predicted and a true mask share, and have together. `missing`: nothing was predicted."""

    intersection: int
    union: int
    missing: bool = False

    @property
    def iou(self) -> float:
        """1 where both masks are empty: there was nothing to find; 0 where nothing was predicted."""
        if self.missing:
            return 0.0
        return self.intersection / self.union if self.union else 1.0


def overlap(predicted: Rle | None, target: Rle, ignore: Rle | None = None) -> Overlap:
    """Of compressed COCO run lengths of the same size; pixels of `ignore` count in neither mask. `predicted` None:
    nothing was predicted. Raises ValueError where the sizes differ."""
    masks = [mask for mask in (target, predicted, ignore) if mask is not None]
    if len({tuple(mask["size"]) for mask in masks}) > 1:
        sizes = " and ".join(f"{mask['size'][1]} x {mask['size'][0]}" for mask in masks)
        raise ValueError(f"the masks are of {sizes} pixels")
    either = target if predicted is None else coco_mask.merge([predicted, target])
    union = _area(either) - _common(either, ignore)
    if predicted is None:
        return Overlap(0, union, missing=True)
    both = coco_mask.merge([predicted, target], intersect=True)
    return Overlap(_area(both) - _common(both, ignore), union)


def _area(mask: Rle) -> int:
    return int(coco_mask.area(mask))


def _common(mask: Rle, other: Rle | None) -> int:
    return 0 if other is None else _area(coco_mask.merge([mask, other], intersect=True))


def referring_scores(overlaps: Sequence[Overlap]) -> dict[str, float]:
    """`cIoU`: the sum of all intersections by that of all unions, so large things weigh more. `gIoU`: the mean IoU.
    `Pr@t`: the share of IoUs of at least t. Fractions of 1; NaN of nothing."""
    union = sum(one.union for one in overlaps)
    ious = np.array([one.iou for one in overlaps])
    cumulative = sum(one.intersection for one in overlaps) / union if union else _mean(ious)
    return {"cIoU": cumulative, "gIoU": _mean(ious)} | {f"Pr@{t}": _mean(ious >= t) for t in THRESHOLDS}


def narrative_scores(overlaps: Sequence[Overlap], kinds: Sequence[Collection[str]]) -> dict[str, float]:
    """Average recall of all phrases, and of those of each of `KINDS` (NaN where there are none).

    The recall at a threshold t is the share of IoUs of at least t; its average over t from 0 to 1, the area under that
    curve (arXiv 2109.04988), is the mean IoU.
    """
    ious = np.array([one.iou for one in overlaps])
    scores = {"AR": _mean(ious)}
    for kind in KINDS:
        scores[f"AR_{kind}"] = _mean(ious[[kind in mine for mine in kinds]]) if len(ious) else float("nan")
    return scores | {"recall@0.5": _mean(ious >= 0.5)}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
