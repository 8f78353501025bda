"""SAM 2 and 2.1 (Ravi et al. 2024, arXiv 2408.00714) and SAM 3's tracker, which has its call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from aas.segmenters.sam_family import SamFamily, bilinear
from aas.segmenters.sam_records import SamEmbedding


class Sam2Segmenter(SamFamily):
    """transformers' Sam2Model and Sam3TrackerModel.

    The photograph is stretched to the square input, and masks are scaled from the decoder's size to the photograph's
    at once. transformers' processor for them needs torchvision; this is what it computes, in plain PyTorch.
    """

    def input_size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        return self.input_side, self.input_side

    def resized(self, image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
        """See `SamFamily`. As torchvision resizes uint8 tensors on most machines: in float32, rounded; where it takes
        its AVX2 kernel, a pixel may differ by one grey level."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
        return F.interpolate(pixels, size_hw, mode="bilinear", antialias=True)[0].round().to(torch.uint8)

    def image_features(self, pixels: Tensor) -> Sequence[Tensor]:
        return self.model.get_image_embeddings(pixels)

    def decoder_features(self, features: Sequence[Tensor]) -> dict[str, Any]:
        return {"image_embeddings": list(features)}

    def in_mask_frame(self, logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """See `SamFamily`: the padding is cut off, the rest stretched as the photograph is."""
        scale = logits.shape[-1] / max(size_hw)
        height, width = (max(1, int(side * scale + 0.5)) for side in size_hw)
        return bilinear(logits[..., :height, :width], (self.mask_side, self.mask_side))

    def at_original_size(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        return bilinear(logits, embedding.size_hw)
