"""Masks of a photograph that nobody pointed at: what a segmenter draws from a grid of points."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from aas.geometry import cell_centres, placed_view
from aas.records import View
from aas.segmenters.sam_family import SamFamily
from aas.segmenters.sam_records import SamEmbedding

POINTS_A_SIDE = 8
ALIKE = 0.88  # IoU from which two masks are one
LEAST_CELLS = 8


@dataclass(frozen=True)
class Proposals:
    """`logits` float16 [K, m, m], each a mask where it is above 0, at cells of `view`; `scores` float32 [K], the
    segmenter's own, the highest first; `sizes` int64 [K]: which of a point's three masks each is, the smallest 0."""

    logits: Tensor
    scores: Tensor
    sizes: Tensor
    view: View

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return replace(self, logits=self.logits.to(device), scores=self.scores.to(device), sizes=self.sizes.to(device))


@torch.inference_mode()
def proposals(segmenter: SamFamily, embedding: SamEmbedding) -> Proposals:
    """All that differ, on the CPU; at least one, which may be empty."""
    height, width = embedding.size_hw
    steps = (np.arange(POINTS_A_SIDE) + 0.5) / POINTS_A_SIDE
    points = np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 1, 2)
    candidates = segmenter.masks(embedding, points.astype(np.float32))
    logits, scores = candidates.logits.flatten(0, 1).cpu(), torch.from_numpy(candidates.scores).flatten()
    sizes = torch.arange(len(scores)) % candidates.scores.shape[1]
    side = segmenter.input_side
    view = placed_view((logits.shape[1], logits.shape[2]), embedding.size_hw, embedding.input_size_hw, (side, side))
    x, y = cell_centres(view)
    logits[:, ~((y < height)[:, None] & (x < width))] = -torch.inf
    kept = _different(logits > 0, scores)
    return Proposals(logits[kept].clamp(min=-30).half().clone(), scores[kept].clone(), sizes[kept], view)


def pairwise_ious(masks: Tensor, others: Tensor) -> Tensor:
    """Of bool [N, h, w] and [M, h, w], float32 [N, M]."""
    ours, theirs = masks.flatten(1).float(), others.flatten(1).float()
    common = ours @ theirs.T
    return common / (ours.sum(1)[:, None] + theirs.sum(1) - common).clamp(min=1)


def _different(masks: Tensor, scores: Tensor) -> Tensor:
    """Indices, the best first, of masks [N, h, w] that no better one is like."""
    areas, alike = masks.flatten(1).sum(1), pairwise_ious(masks, masks) >= ALIKE
    order = scores.argsort(descending=True, stable=True)
    order = order[areas[order] >= LEAST_CELLS] if (areas >= LEAST_CELLS).any() else order[:1]
    kept: list[int] = []
    for i in order.tolist():
        if not alike[i, kept].any():
            kept.append(i)
    return torch.tensor(kept)
