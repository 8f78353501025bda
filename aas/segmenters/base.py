"""What every segmenter offers, whatever it is made of, and the records that cross it.

Four names: `encode` photographs once, then `masks` for many prompts on one of them; `device` and `mask_side` say where
it computes and which coarse masks it likes. SAM and its kin stand behind this contract in `sam_family.py`;
docs/adding-a-segmenter.md adds one that is no network at all.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

CONTRACT = ("encode", "masks", "device", "mask_side")


@dataclass(frozen=True)
class ImageEmbedding:
    """One encoded photograph.

    `size_hw` of the upright photograph, in pixels; `features`: whatever this segmenter's own `masks` needs of it, the
    pixels themselves if need be. Nobody else looks at them.
    """

    size_hw: tuple[int, int]
    features: Any


class Candidates(Protocol):
    """The masks of N prompts on one photograph, K for each, in the segmenter's own order (SAM: last = largest whole).

    `MaskCandidates` is one. A segmenter whose masks are dear to make large has a class of its own and makes only those
    that are asked for.
    """

    @property
    def scores(self) -> np.ndarray:
        """float32 [N, K]: the segmenter's own estimate of each mask's IoU with what was meant, about 0 to 1."""

    @property
    def masks(self) -> np.ndarray:
        """All of them, bool [N, K, H, W] at the photograph's size."""

    def chosen(self, candidates: int | np.ndarray) -> np.ndarray:
        """One mask per prompt, bool [N, H, W]. `candidates`: which of the K, one for all or int [N]; -1 is the last."""


@dataclass(frozen=True)
class MaskCandidates:
    """`Candidates` that are there already: `masks` bool [N, K, H, W] and `scores` float [N, K]; K may be 1.

    A segmenter that cannot judge its masks gives each the score 1. Raises ValueError for other shapes.
    """

    masks: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        if self.masks.dtype != bool or self.masks.ndim != 4 or self.masks.shape[:2] != self.scores.shape:
            raise ValueError(
                "A segmenter's masks are bool [N, K, H, W] with scores [N, K], not "
                f"{self.masks.dtype} {list(self.masks.shape)} with scores {list(self.scores.shape)}."
            )

    def chosen(self, candidates: int | np.ndarray) -> np.ndarray:
        """See `Candidates`."""
        return self.masks[np.arange(len(self.masks)), candidates]


class Segmenter(ABC):
    """A promptable segmenter. All coordinates are pixels (x, y) of the upright original photograph.

    `load_segmenter` makes one that needs no checkpoint by `Class(device, dtype)`: where to compute, and in what.
    """

    def __init__(self, device: torch.device | None = None, dtype: torch.dtype | None = None):  # noqa: B027
        """For a segmenter with neither: it computes on the CPU, in what it likes."""

    loaded_as = ""  # the name that `load_segmenter` was given, where that is a checkpoint's
    reads_points = True  # whether points change its masks
    wants_maps = False  # whether `masks` is given `maps` too: of each prompt the phrase's map and its view

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @property
    def mask_side(self) -> int:
        """Cells of the side of the coarse masks that it is given."""
        return 256

    @property
    def is_small(self) -> bool:
        """Whether it is so light that on a CPU each worker process had better do whole images with one of its own."""
        return False

    @abstractmethod
    def encode(self, images: Sequence[np.ndarray]) -> Sequence[ImageEmbedding]:
        """Encode photographs (uint8 [H, W, 3] RGB, any sizes); one embedding each, in order."""

    @abstractmethod
    def masks(
        self,
        embedding: ImageEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> Candidates:
        """K masks for each of N prompts on one photograph; a prompt's masks depend on no other prompt.

        `points_xy` float [N, P, 2]; `labels` int [N, P]: 1 = on the thing (the default), 0 = not on it; `boxes_xyxy`
        float [N, 4]; `mask_logits` float [N, s, s], coarse masks (above 0 = on the thing) of the photograph padded to a
        square at the right or the bottom. At least one kind of prompt is given; several belong together.
        """
