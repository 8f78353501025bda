"""SAM and every model with its call, through transformers (Kirillov et al. 2023, arXiv 2304.02643)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskGeneration, PreTrainedModel, SamImageProcessorPil

from aas.segmenters.base import ImageEmbedding, MaskCandidates

# Bounds the float masks at original size that exist at once; a 12-megapixel photograph has 144 MB of them per prompt.
PROMPTS_PER_UPSCALE = 8


class SamSegmenter:
    """`aas.segmenters.base.Segmenter` around a SamModel-like `model` and its image processor.

    Computes what transformers' SamProcessor, SamModel and post_process_masks compute: long side to the
    model's size, zero padding at the right and bottom, masks upscaled bilinearly and cut at logit 0.
    """

    def __init__(self, model: PreTrainedModel, image_processor: SamImageProcessorPil):
        self.model = model.eval()
        self.image_processor = image_processor

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "SamSegmenter":
        """Load a Hugging Face id or a local folder."""
        from aas.segmenters import embedded  # noqa: F401  tells transformers' Auto classes the embedded architecture

        revision = revision or "main"
        model = AutoModelForMaskGeneration.from_pretrained(model_id, revision=revision, dtype=dtype)
        # The PIL backend: the same pixels with and without torchvision.
        processor = SamImageProcessorPil.from_pretrained(model_id, revision=revision)
        return cls(model.to(device), processor)

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> list[ImageEmbedding]:
        """See `Segmenter.encode`."""
        if not images:
            return []
        inputs = self.image_processor(images=list(images), input_data_format="channels_last", return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.model.device, self.model.dtype)
        features = self.model.get_image_embeddings(pixels)
        return [
            ImageEmbedding(feature, image.shape[:2], (int(height), int(width)))
            for feature, image, (height, width) in zip(features, images, inputs["reshaped_input_sizes"], strict=True)
        ]

    @torch.inference_mode()
    def masks(
        self,
        embedding: ImageEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> MaskCandidates:
        """See `Segmenter.masks`."""
        given = [prompt for prompt in (points_xy, boxes_xyxy, mask_logits) if prompt is not None]
        if not given:
            raise ValueError("masks() needs points_xy, boxes_xyxy or mask_logits.")
        if len(given[0]) == 0:
            return MaskCandidates(np.zeros((0, 3, *embedding.size_hw), bool), np.zeros((0, 3), np.float32))

        prompts: dict[str, Tensor] = {}  # each [N, 1, ...]
        if points_xy is not None:
            prompts["input_points"] = self._to_input_frame(points_xy, embedding)[:, None]
            labels = np.ones(np.shape(points_xy)[:2]) if labels is None else labels
            prompts["input_labels"] = self._tensor(labels)[:, None]
        if boxes_xyxy is not None:
            corners_xy = np.reshape(boxes_xyxy, (-1, 2, 2))
            prompts["input_boxes"] = self._to_input_frame(corners_xy, embedding).flatten(1)[:, None]
        features = embedding.features[None]
        if mask_logits is None:  # N prompts on one image
            prompts = {name: prompt.transpose(0, 1) for name, prompt in prompts.items()}
        else:  # transformers takes one mask per image: the image N times, one prompt each
            features = features.expand(len(mask_logits), -1, -1, -1)
            prompts["input_masks"] = self._tensor(mask_logits).to(self.model.dtype)[:, None]
        output = self.model(image_embeddings=features, multimask_output=True, **prompts)
        masks = [
            self._at_original_size(logits, embedding)
            for logits in output.pred_masks.flatten(0, 1).split(PROMPTS_PER_UPSCALE)
        ]
        return MaskCandidates(np.concatenate(masks), output.iou_scores.flatten(0, 1).float().cpu().numpy())

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32, device=self.model.device)

    def _to_input_frame(self, xy: np.ndarray, embedding: ImageEmbedding) -> Tensor:
        height, width = embedding.size_hw
        input_height, input_width = embedding.input_size_hw
        return self._tensor(np.asarray(xy, np.float64) * (input_width / width, input_height / height))

    def _at_original_size(self, low_resolution: Tensor, embedding: ImageEmbedding) -> np.ndarray:
        """Logits [n, 3, h, w] of the padded square -> bool [n, 3, H, W] of the photograph."""
        (masks,) = self.image_processor.post_process_masks(
            [low_resolution.float()], [embedding.size_hw], [embedding.input_size_hw]
        )
        return masks.cpu().numpy()
