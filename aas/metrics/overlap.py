"""What a predicted and a true mask have in common, on run lengths; no mask is ever decoded."""

from dataclasses import dataclass
from functools import cached_property

from pycocotools import mask as coco_mask

from aas.rle import Rle, area


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


@dataclass(frozen=True)
class MaskPair:
    """Compressed COCO run lengths of one size. `predicted` None: nothing was predicted. Pixels of `ignore` count in
    neither mask. `kinds`: what the dataset says the thing is, for figures of a part of the whole. Raises ValueError
    where the sizes differ."""

    predicted: Rle | None
    target: Rle
    ignore: Rle | None = None
    kinds: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        sizes = {tuple(mask["size"]) for mask in (self.target, self.predicted, self.ignore) if mask is not None}
        if len(sizes) > 1:
            named = " and ".join(f"{width} x {height}" for height, width in sorted(sizes))
            raise ValueError(f"the masks are of {named} pixels")

    @cached_property
    def overlap(self) -> Overlap:
        """Pixels that the two masks share, and have together."""
        either = self.target if self.predicted is None else coco_mask.merge([self.predicted, self.target])
        union = area(either) - _common(either, self.ignore)
        if self.predicted is None:
            return Overlap(0, union, missing=True)
        both = coco_mask.merge([self.predicted, self.target], intersect=True)
        return Overlap(area(both) - _common(both, self.ignore), union)

    @property
    def iou(self) -> float:
        """Their intersection over union."""
        return self.overlap.iou


def _common(mask: Rle, other: Rle | None) -> int:
    return 0 if other is None else area(coco_mask.merge([mask, other], intersect=True))
