"""How well masks of given expressions fit: cIoU, gIoU and precision of referring segmentation, average recall of PNG.

Everything is counted on run lengths; no mask is ever decoded.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pycocotools import mask as coco_mask

from aas.metrics.bootstrap import Evidence
from aas.rle import Rle, area

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
    union = area(either) - _common(either, ignore)
    if predicted is None:
        return Overlap(0, union, missing=True)
    both = coco_mask.merge([predicted, target], intersect=True)
    return Overlap(area(both) - _common(both, ignore), union)


def _common(mask: Rle, other: Rle | None) -> int:
    return 0 if other is None else area(coco_mask.merge([mask, other], intersect=True))


def referring_evidence(overlaps: Sequence[Overlap], images: Sequence[int]) -> Evidence:
    """What `bootstrap.figures` makes these of: `cIoU`, the sum of all intersections by that of all unions, so large
    things weigh more; `gIoU`, the mean IoU; `Pr@t`, the share of IoUs of at least t. Fractions of 1; NaN of nothing.
    `images`: the number of each mask's image, from 0."""
    ious = np.array([one.iou for one in overlaps])
    intersections, unions = ([getattr(one, what) for one in overlaps] for what in ("intersection", "union"))
    evidence = {"cIoU": _ratio(intersections, unions, images), "gIoU": _mean(ious, images)}
    return evidence | {f"Pr@{t}": _mean(ious >= t, images) for t in THRESHOLDS}


def narrative_evidence(
    overlaps: Sequence[Overlap], kinds: Sequence[Collection[str]], images: Sequence[int]
) -> Evidence:
    """As above, of average recall: of all phrases, and of those of each of `KINDS`.

    The recall at a threshold t is the share of IoUs of at least t; its average over t from 0 to 1, the area under that
    curve (section 4.2 of arXiv 2109.04988), is the mean IoU.
    """
    ious = np.array([one.iou for one in overlaps])
    evidence = {"AR": _mean(ious, images)}
    for kind in KINDS:
        mine = np.array([kind in of for of in kinds])
        evidence[f"AR_{kind}"] = _ratio(ious * mine, mine, images)
    return evidence | {"recall@0.5": _mean(ious >= 0.5, images)}


def _mean(values: ArrayLike, images: Sequence[int]) -> dict[str, Any]:
    return _ratio(values, np.ones(len(images)), images)


def _ratio(values: ArrayLike, by: ArrayLike, images: Sequence[int]) -> dict[str, Any]:
    """The sum of `values` by that of `by`, from the sums of each image."""
    values, by = (np.bincount(images, np.asarray(column, float)).tolist() for column in (values, by))
    return {"kind": "mean", "values": values, "n": by}
