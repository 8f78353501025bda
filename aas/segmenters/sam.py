"""SAM (Kirillov et al. 2023, arXiv 2304.02643) through transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aas.segmenters.sam_family import SamFamily, bilinear
from aas.segmenters.sam_records import SamEmbedding


class SamSegmenter(SamFamily):
    """transformers' SamModel, and models with its call.

    Computes what segment-anything's SamPredictor and transformers' SamProcessor, SamModel and post_process_masks
    compute: long side to the model's size, zero padding at the right and bottom, masks upscaled bilinearly to the
    square, cropped, scaled to the photograph and cut at logit 0.
    """

    size_keys = ("longest_edge",)

    def input_size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """See `SamFamily`. A side of less than half a pixel becomes one."""
        scale = self.input_side / max(size_hw)
        return max(1, int(size_hw[0] * scale + 0.5)), max(1, int(size_hw[1] * scale + 0.5))

    def resized(self, image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
        """See `SamFamily`. As Pillow rounds: within one grey level of PyTorch's, but SAM's own."""
        resized = Image.fromarray(image).resize((size_hw[1], size_hw[0]), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def image_features(self, pixels: Tensor) -> Sequence[Tensor]:
        return [self.model.get_image_embeddings(pixels)]

    def decoder_features(self, features: Sequence[Tensor]) -> dict[str, Any]:
        return {"image_embeddings": features[0]}

    def in_mask_frame(self, logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
        return bilinear(logits, (self.mask_side, self.mask_side))

    def at_original_size(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        return bilinear(self.at_input_size(logits, embedding), embedding.size_hw)

    def at_input_size(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """Logits [n, 1, h, w] of the square input -> those of the photograph in it, at that size."""
        height, width = embedding.input_size_hw
        return bilinear(logits, (self.input_side, self.input_side))[..., :height, :width]
