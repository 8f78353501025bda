"""SAM-HQ (Ke et al. 2023, arXiv 2306.01567): SAM with a token and features that draw finer edges."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from aas.segmenters.sam import SamSegmenter


class SamHQSegmenter(SamSegmenter):
    """transformers' SamHQModel, its three masks in SAM's order.

    The model sorts them by score, and the last would be the one that it believes in least.
    """

    def image_features(self, pixels: Tensor) -> Sequence[Tensor]:
        embeddings, intermediate = self.model.get_image_embeddings(pixels)
        return [embeddings, *intermediate]

    def decoder_features(self, features: Sequence[Tensor]) -> dict[str, Any]:
        return {"image_embeddings": features[0], "intermediate_embeddings": list(features[1:])}

    def decode(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """See `SamFamily`. The scores are read before the model sorts them, and its sorting is undone."""
        unsorted: list[Tensor] = []
        head = self.model.mask_decoder.iou_prediction_head
        hook = head.register_forward_hook(lambda module, arguments, scores: unsorted.append(scores))
        try:
            logits, _ = super().decode(**inputs)
        finally:
            hook.remove()
        scores = unsorted[0][:, :, 1:]  # the first is the score of the single mask
        places = scores.sort(dim=2, descending=True).indices.argsort(dim=2)
        return torch.gather(logits, 2, places[..., None, None].expand_as(logits)), scores
