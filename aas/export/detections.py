"""supervision's `Detections`, in memory."""

from typing import TYPE_CHECKING, Any

import numpy as np

from aas import rle
from aas.export.names import ClassNames
from aas.export.photograph import Photograph

if TYPE_CHECKING:
    from supervision import Detections


def detections(photograph: Photograph) -> "Detections":
    """Of N phrases: `xyxy` float32 [N, 4], half-open, `mask` bool [N, H, W], `confidence` float32 [N], `class_id`
    int64 [N]; `data`: `class_name` and `phrase` [N] of str, and `mask_score` float32 [N], the segmenter's, where
    `confidence` is the phrases' own."""
    try:
        from supervision import Detections
    except ImportError as error:
        raise ImportError('supervision is not installed: pip install "attend-and-segment[export]"') from error
    found, names = photograph.found, ClassNames()
    masks = np.array([rle.decoded(one.mask) for one in found], bool).reshape(-1, *photograph.size_hw)
    scores = [one.told_score for one in found]
    data: dict[str, Any] = {
        "class_name": np.array([one.label for one in found], str),
        "phrase": np.array([one.phrase for one in found], str),
    }
    if found and all(one.mask_score for one in found):
        data["mask_score"] = np.array([one.score for one in found], np.float32)
    return Detections(
        xyxy=np.array([rle.box_xyxy(mask) for mask in masks], np.float32).reshape(-1, 4),
        mask=masks,
        confidence=None if None in scores else np.array(scores, np.float32),
        class_id=np.array([names.number(one.label) for one in found], np.int64),
        data=data,
    )
