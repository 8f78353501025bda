"""What every segmenter offers: encode photographs once, then masks for many prompts in one batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class ImageEmbedding:
    """One encoded photograph.

    `features` [C, h, w], on the segmenter's device and in its dtype; `size_hw` of the upright original, in
    pixels; `input_size_hw` of the photograph inside the segmenter's padded square input, in pixels.
    """

    features: Tensor
    size_hw: tuple[int, int]
    input_size_hw: tuple[int, int]


@dataclass(frozen=True)
class MaskCandidates:
    """The masks of N prompts on one photograph, in the segmenter's own order (SAM: last = largest whole).

    `masks` bool [N, 3, H, W] at the original size; `scores` float32 [N, 3], the segmenter's own estimate of
    each mask's IoU with what was meant (about 0 to 1, not clipped).
    """

    masks: np.ndarray
    scores: np.ndarray


class Segmenter(Protocol):
    """A promptable segmenter. All coordinates are pixels (x, y) of the upright original photograph."""

    def encode(self, images: Sequence[np.ndarray]) -> list[ImageEmbedding]:
        """Encode photographs (uint8 [H, W, 3] RGB, any sizes) in one batch; one embedding each, in order."""
        ...

    def masks(
        self,
        embedding: ImageEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> MaskCandidates:
        """Three masks for each of N prompts on one photograph, all in one decoder batch.

        `points_xy` float [N, P, 2]; `labels` int [N, P]: 1 = on the thing (the default), 0 = not on it,
        -10 = no point (fills up rows of unequal length); `boxes_xyxy` float [N, 4]; `mask_logits` float
        [N, h, w], coarse masks in the frame of the padded square input, at the segmenter's mask resolution.
        At least one kind of prompt must be given; several are combined. N = 0 gives empty arrays.
        """
        ...
