"""What SAM, SAM-HQ, SAM 2 and SAM 3's tracker share: transformers' models with SAM's call."""

import math
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForMaskGeneration, PreTrainedModel, SamImageProcessorPil

from aas import devices, int8
from aas.model_files import check_processor, weight_files
from aas.segmenters.base import ImageEmbedding, Segmenter
from aas.segmenters.pixel_settings import pixel_statistics
from aas.segmenters.sam_decoding import decoded
from aas.segmenters.sam_records import SamCandidates, SamEmbedding

FLOATS_PER_UPSCALE = 1 << 22  # masks are made large a few at a time: they stay in the cache, and bounded when huge


class SamFamily(Segmenter):
    """A segmenter around a network with SAM's call.

    `model`: a model of transformers with SAM's call. `pixel_mean`, `pixel_std`: of each channel, in units of the pixel
    range. `dtype`: what the image encoder computes in; weights, prompts and decoder stay float32, since 8 bits of a
    coordinate are too few for a point.
    """

    size_keys: tuple[str, ...] = ("height", "width")  # of the processor's `size`: the input that the family makes

    def __init__(
        self,
        model: PreTrainedModel,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        dtype: torch.dtype = torch.float32,
    ):
        self.model, self.dtype = model.eval(), dtype
        # In the pixels' own range at once, as transformers' tensor processors do it.
        self.pixel_mean = torch.tensor(pixel_mean, device=model.device)[:, None, None] * 255
        self.pixel_std = torch.tensor(pixel_std, device=model.device)[:, None, None] * 255

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a Hugging Face id or a local folder. Raises ValueError or FileNotFoundError where files or
        weights are missing or damaged."""
        from aas.segmenters import embedded  # noqa: F401  tells transformers' Auto classes the embedded architecture

        revision = revision or "main"
        if Path(source).is_dir():
            check_processor(Path(source), words=False)
            weight_files(Path(source))
        # The same settings for all families; the processor classes themselves need torchvision for some.
        settings, _ = SamImageProcessorPil.get_image_processor_dict(source, revision=revision)
        mean, std = pixel_statistics(settings, source)
        model, info = int8.from_pretrained(AutoModelForMaskGeneration, source, revision, dtype=torch.float32)
        if info["missing_keys"]:  # transformers would go on with random numbers in their place
            names = sorted(info["missing_keys"])
            raise ValueError(f"{source} lacks {len(names)} of the segmenter's weights, the first is {names[0]}.")
        model = model.to(device).to(memory_format=torch.channels_last)  # in which convolutions run, without a copy
        segmenter = cls(model, mean, std, dtype)
        segmenter.check_size(settings.get("size") or {}, source)
        return segmenter

    def check_size(self, size: dict[str, int] | int, source: str) -> None:
        """ValueError where the processor's settings make another input than the model's own square."""
        sides = {size.get(key) for key in self.size_keys} if isinstance(size, dict) else {size}
        if sides - {None, self.input_side}:
            raise ValueError(f"{source}: its processor resizes to {size}, its model sees {self.input_side} pixels.")

    # ---------------------------------------------------------------------------------- what a family says

    @abstractmethod
    def input_size_hw(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """How large a photograph of `size_hw` pixels becomes inside the model's square input."""

    @abstractmethod
    def resized(self, image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
        """uint8 [H, W, 3] -> uint8 [3, h, w] on the CPU, with the rounding of the family's own processor."""

    @abstractmethod
    def image_features(self, pixels: Tensor) -> Sequence[Tensor]:
        """The image encoder: pixels float32 [B, 3, S, S] -> tensors [B, ...] that `decoder_features` understands."""

    @abstractmethod
    def decoder_features(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """Those tensors as arguments of the model's call."""

    @abstractmethod
    def in_mask_frame(self, logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """Logits [n, 1, s, s] of a photograph of `size_hw` pixels, padded to a square at the right or the bottom ->
        [n, 1, m, m] of the square input, m = `mask_side`."""

    @abstractmethod
    def at_original_size(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """Logits [n, 1, h, w] of the square input -> [n, 1, H, W] of the photograph."""

    def decode(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """The model's call: logits [B, P, K, h, w] and scores [B, P, K]."""
        output = self.model(multimask_output=True, **inputs)
        return output.pred_masks, output.iou_scores

    # -------------------------------------------------------------------------------------------- segmenting

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def input_side(self) -> int:
        """Pixels of the model's square input."""
        return self.model.prompt_encoder.input_image_size

    @property
    def mask_side(self) -> int:
        """Cells of the square of a coarse mask: the prompt encoder halves it twice on its way to the embedding's."""
        return 4 * self.model.prompt_encoder.image_embedding_size[0]

    @property
    def is_small(self) -> bool:
        """See `Segmenter`."""
        return devices.is_small(self.model)

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> list[SamEmbedding]:
        """Encode photographs (uint8 [H, W, 3] RGB, any sizes) in one batch; one embedding each, in order."""
        if not images:
            return []
        sizes = [self.input_size_hw(image.shape[:2]) for image in images]
        pixels = torch.stack(list(map(self._pixels, self._resized(images, sizes), sizes)))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.image_features(pixels)
        return [
            SamEmbedding(image.shape[:2], tuple(feature[i].float() for feature in features), size)
            for i, (image, size) in enumerate(zip(images, sizes, strict=True))
        ]

    def _resized(self, images: Sequence[np.ndarray], sizes_hw: Sequence[tuple[int, int]]) -> list[Tensor]:
        """`resized` of each; of several on all cores, since a GPU waits for it."""
        if len(images) == 1:
            return [self.resized(images[0], sizes_hw[0])]
        with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as pool:
            return list(pool.map(self.resized, images, sizes_hw))

    def _pixels(self, resized: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """uint8 [3, h, w] -> [3, S, S] float32 on the device: normalised, zeros at the right and bottom."""
        pixels = (resized.to(self.device).float() - self.pixel_mean) / self.pixel_std
        return F.pad(pixels, (0, self.input_side - size_hw[1], 0, self.input_side - size_hw[0]))

    @torch.inference_mode()
    def masks(
        self,
        embedding: ImageEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> SamCandidates:
        """Three masks for each of N prompts on one photograph; the arguments are those of `Segmenter.masks`.

        A label -10 = no point fills up a row, but is attended to. Of `mask_logits` [N, s, s] any s will do, the
        segmenter's own (`mask_side`) is exact. N = 0 gives empty arrays. All prompts go through the decoder together,
        in parts of `PROMPTS_PER_DECODE`. Raises ValueError for prompts that do not fit each other, and where the model
        overflows.
        """
        given = {"points_xy": points_xy, "labels": labels, "boxes_xyxy": boxes_xyxy, "mask_logits": mask_logits}
        (candidates,) = self.masks_together([(embedding, given)])
        return candidates

    @torch.inference_mode()
    def masks_together(
        self, asked: Sequence[tuple[ImageEmbedding, Mapping[str, np.ndarray | None]]]
    ) -> list[SamCandidates]:
        """As `masks` for each embedding and its arguments; prompts of one kind go through the decoder together, of
        however many photographs."""
        embeddings = [embedding for embedding, _ in asked if isinstance(embedding, SamEmbedding)]
        if len(embeddings) < len(asked):
            raise ValueError("masks() needs an embedding that this segmenter's own encode() made.")
        prompts = [self._prompts(one, **given) for one, (_, given) in zip(embeddings, asked, strict=True)]
        found = decoded(self._decoded, embeddings, prompts)
        return [self._candidates(*one, embedding) for one, embedding in zip(found, embeddings, strict=True)]

    def _candidates(self, logits: Tensor, scores: Tensor, embedding: SamEmbedding) -> SamCandidates:
        if not (scores.isfinite().all() and logits.isfinite().all()):
            raise ValueError(
                f"The segmenter's masks or scores are not finite: {self.dtype} may not hold them, try float32."
            )
        return SamCandidates(logits, scores.float().cpu().numpy(), lambda coarse: self.drawn(coarse, embedding))

    def _prompts(
        self,
        embedding: SamEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
    ) -> dict[str, Tensor]:
        """As arguments of the model's call, each [N, ...]."""
        prompts: dict[str, Tensor] = {}
        if points_xy is not None:
            prompts["input_points"] = self._to_input_frame(points_xy, embedding)
            labels = np.ones(np.shape(points_xy)[:2]) if labels is None else labels
            prompts["input_labels"] = torch.as_tensor(labels, device=self.device).long()
        if boxes_xyxy is not None:
            prompts["input_boxes"] = self._to_input_frame(np.reshape(boxes_xyxy, (-1, 2, 2)), embedding).flatten(1)
        if mask_logits is not None:
            coarse = torch.as_tensor(mask_logits, dtype=torch.float32, device=self.device)
            prompts["input_masks"] = self.in_mask_frame(coarse[:, None], embedding.size_hw)[:, 0]
        return prompts

    def _decoded(self, features: Sequence[Tensor], prompts: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`features` [B, ...] of photographs, prompts [B, P, ...] on each: logits [B P, K, h, w], scores [B P, K]."""
        logits, scores = self.decode(**self.decoder_features(features), **prompts)
        return logits.flatten(0, 1), scores.flatten(0, 1)

    def _to_input_frame(self, xy: np.ndarray, embedding: SamEmbedding) -> Tensor:
        (height, width), (input_height, input_width) = embedding.size_hw, embedding.input_size_hw
        scaled = np.asarray(xy, np.float64) * (input_width / width, input_height / height)
        return torch.as_tensor(scaled, dtype=torch.float32, device=self.device)

    @torch.inference_mode()
    def drawn(self, logits: Tensor, embedding: SamEmbedding) -> np.ndarray:
        """Logits [n, h, w] of the square input -> bool [n, H, W] of the photograph."""
        part = max(1, FLOATS_PER_UPSCALE // max(math.prod(embedding.size_hw), self.input_side**2))
        masks = np.empty((len(logits), *embedding.size_hw), bool)
        for i in range(0, len(logits), part):
            large = self.at_original_size(logits[i : i + part, None], embedding)
            masks[i : i + part] = (large[:, 0] > 0).cpu().numpy()
        return masks


def bilinear(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """[n, 1, h, w] -> [n, 1, H, W], half-pixel centres; the same where the size is the same."""
    return F.interpolate(logits, size_hw, mode="bilinear", align_corners=False)
