"""What the family of SAM knows of a photograph and of masks that are not large yet."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aas.segmenters.base import ImageEmbedding


@dataclass(frozen=True)
class SamEmbedding(ImageEmbedding):
    """One encoded photograph.

    `features`: what the family's decoder needs, float32, on the segmenter's device; `input_size_hw` of the photograph
    at the top left of the segmenter's square input, in pixels.
    """

    features: tuple[Tensor, ...]
    input_size_hw: tuple[int, int]


@dataclass(frozen=True)
class SamCandidates:
    """Masks of N prompts, K = 3 each, see `aas.segmenters.base.Candidates`; made large only when asked for.

    `logits` float32 [N, K, h, w], coarse, on the segmenter's device; `scores` float32 [N, K], not clipped; `upscale`
    makes logits [n, h, w] into masks bool [n, H, W] at the photograph's size, which costs more than the decoder.
    """

    logits: Tensor
    scores: np.ndarray
    upscale: Callable[[Tensor], np.ndarray]

    @property
    def masks(self) -> np.ndarray:
        """All of them, bool [N, K, H, W] at the photograph's size. Computed anew at each access."""
        masks = self.upscale(self.logits.flatten(0, 1))
        return masks.reshape(*self.scores.shape, *masks.shape[1:])

    def chosen(self, candidates: int | np.ndarray) -> np.ndarray:
        """One mask per prompt, bool [N, H, W]. `candidates`: which of the K, one for all or int [N]; -1 is the last."""
        n = len(self.scores)
        which = torch.as_tensor(np.broadcast_to(candidates, (n,)).copy(), dtype=torch.int64)
        return self.upscale(self.logits[torch.arange(n), which])
