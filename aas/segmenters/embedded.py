"""The embedded segmenter: SAM's prompt encoder and mask decoder on a small image encoder.

`EmbeddedSamModel` is transformers' SamModel (Kirillov et al. 2023, arXiv 2304.02643) with its ViT replaced
by a convolutional one and a neck; prompts, masks and scores go through the very same classes. With `edge_width` the
masks are then redrawn twice as fine, beside what the photograph shows at that size.
`scripts/embedded/train_segmenter.py` made the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskGeneration,
    PreTrainedConfig,
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
)
from transformers.models.sam.modeling_sam import (
    SamImageSegmentationOutput,
    SamLayerNorm,
    SamMaskDecoder,
    SamPositionalEmbedding,
    SamPreTrainedModel,
    SamPromptEncoder,
    SamVisionEncoderOutput,
)

from aas.backbones import Backbone, BackboneName
from aas.segmenters.guided import Guide
from aas.segmenters.sam import SamSegmenter
from aas.segmenters.sam_family import bilinear
from aas.segmenters.sam_records import SamEmbedding
from aas.segmenters.specks import without_specks


class EmbeddedSamVisionConfig(PreTrainedConfig):
    """Sizes of the image encoder; `scale` and `num_pos_feats` are SAM's random Fourier features."""

    model_type = "embedded_sam_vision"
    base_config_key = "vision_config"

    backbone: BackboneName = "mobilenet_v2"
    image_size: int = 512
    patch_size: int = 16
    output_channels: int = 128
    num_neck_blocks: int = 3
    edge_width: int = 0  # channels of the branch that redraws edges; 0: none
    num_pos_feats: int = 64
    scale: float = 1.0


class EmbeddedSamConfig(SamConfig):
    """SamConfig whose vision part is `EmbeddedSamVisionConfig`."""

    model_type = "embedded_sam"
    sub_configs_defaults = {
        "prompt_encoder_config": SamPromptEncoderConfig,
        "mask_decoder_config": SamMaskDecoderConfig,
        "vision_config": EmbeddedSamVisionConfig,
    }


class NeckBlock(nn.Module):
    """ConvNeXt block (Liu et al. 2022): 7x7 per channel, layer norm, two-layer MLP, residual."""

    def __init__(self, width: int):
        super().__init__()
        self.filter = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = SamLayerNorm(width, data_format="channels_first")
        self.expand = nn.Conv2d(width, 3 * width, 1)
        self.project = nn.Conv2d(3 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(F.gelu(self.expand(self.norm(self.filter(x)))))


class EmbeddedSamVisionEncoder(nn.Module):
    """Photograph to image embedding: a backbone, and a neck that gathers its strides at stride 16.

    Strides 4 and 8 are folded into the cells (a strided convolution keeps where inside a cell an edge is,
    which the decoder needs to draw it); stride 32 and the mean of the image say what the thing is.
    """

    def __init__(self, config: EmbeddedSamVisionConfig):
        super().__init__()
        width = config.output_channels
        self.backbone = Backbone(config.backbone)
        channels = self.backbone.channels
        self.from_stride_4 = nn.Conv2d(channels[4], width, 4, stride=4)
        self.from_stride_8 = nn.Conv2d(channels[8], width, 2, stride=2)
        self.from_stride_16 = nn.Conv2d(channels[16], width, 1)
        self.from_stride_32 = nn.Conv2d(channels[32], width, 1)
        self.from_image = nn.Conv2d(channels[32], width, 1)
        self.norm = SamLayerNorm(width, data_format="channels_first")
        self.blocks = nn.Sequential(*(NeckBlock(width) for _ in range(config.num_neck_blocks)))
        self.norm_out = SamLayerNorm(width, data_format="channels_first")

    def forward(self, pixel_values: Tensor, **kwargs: object) -> SamVisionEncoderOutput:
        """`pixel_values` [B, 3, S, S], RGB in [-1, 1], zero where padded -> [B, output_channels, S/16, S/16]."""
        features = self.backbone(pixel_values)
        coarse = F.interpolate(self.from_stride_32(features[32]), scale_factor=2, mode="bilinear")
        x = (
            coarse
            + self.from_image(features[32].mean((2, 3), keepdim=True))
            + self.from_stride_16(features[16])
            + self.from_stride_8(features[8])
            + self.from_stride_4(features[4])
        )
        return SamVisionEncoderOutput(last_hidden_state=self.norm_out(self.blocks(self.norm(x))))


class EdgeBranch(nn.Module):
    """Redraws masks at stride 2, where the decoder's are at stride 4: a correction of their logits, at first zero."""

    def __init__(self, embedding_width: int, width: int):
        super().__init__()
        self.from_pixels = nn.Sequential(nn.Conv2d(3, width, 4, stride=2, padding=1), nn.GELU())
        self.from_embedding = nn.Conv2d(embedding_width, width, 1)
        self.from_logits = nn.Conv2d(1, width, 5, padding=2)
        self.filters = nn.ModuleList(nn.Conv2d(width, width, 5, padding=2, groups=width) for _ in range(2))
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(2))
        self.to_logits = nn.Conv2d(width, 1, 3, padding=1)

    def features(self, pixel_values: Tensor, embeddings: Tensor) -> Tensor:
        """Once a photograph: pixels [B, 3, S, S] and the embedding [B, C, S/16, S/16] -> [B, width, S/2, S/2]."""
        fine = self.from_pixels(pixel_values)
        return fine + F.interpolate(self.from_embedding(embeddings), fine.shape[-2:], mode="bilinear")

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        """`logits` [B, P, K, S/4, S/4] of P prompts, `features` [B, width, S/2, S/2] -> [B, P, K, S/2, S/2]."""
        n_masks = logits.shape[1] * logits.shape[2]
        coarse = F.interpolate(logits.flatten(0, 2)[:, None], scale_factor=2, mode="bilinear")
        # Far from the edge a logit's size says nothing of where the edge is.
        x = self.from_logits(torch.tanh(coarse / 4)) + features.repeat_interleave(n_masks, 0)
        for depthwise, mix in zip(self.filters, self.mixes, strict=True):
            x = x + mix(F.gelu(depthwise(x)))
        return (coarse + self.to_logits(F.gelu(x)))[:, 0].unflatten(0, logits.shape[:3])


class EmbeddedSamModel(SamModel):
    """SamModel with `EmbeddedSamVisionEncoder` and, where the configuration has one, an `EdgeBranch`."""

    config_class = EmbeddedSamConfig

    def __init__(self, config: EmbeddedSamConfig):
        # Not SamModel's own __init__: it would build a ViT only to throw it away.
        SamPreTrainedModel.__init__(self, config)
        self.shared_image_embedding = SamPositionalEmbedding(config.vision_config)
        self.vision_encoder = EmbeddedSamVisionEncoder(config.vision_config)
        self.prompt_encoder = SamPromptEncoder(config)
        config.mask_decoder_config._attn_implementation = config._attn_implementation
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)
        vision = config.vision_config
        self.edges = EdgeBranch(vision.output_channels, vision.edge_width) if vision.edge_width else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if self.edges is not None and module is self.edges.to_logits:
            nn.init.zeros_(module.weight)

    def edge_features(self, pixel_values: Tensor, image_embeddings: Tensor) -> Tensor | None:
        """What `forward` needs beside the embeddings to redraw edges; None without an edge branch."""
        return self.edges.features(pixel_values, image_embeddings) if self.edges is not None else None

    def forward(
        self, pixel_values: Tensor | None = None, *, edge_features: Tensor | None = None, **kwargs: Any
    ) -> SamImageSegmentationOutput:
        """SamModel's, with masks at stride 2 where there is an edge branch; with `image_embeddings` it needs their
        `edge_features`."""
        if self.edges is None:
            return super().forward(pixel_values, **kwargs)
        if pixel_values is not None:
            kwargs["image_embeddings"] = self.get_image_embeddings(pixel_values)
            edge_features = self.edge_features(pixel_values, kwargs["image_embeddings"])
        if edge_features is None:
            raise ValueError("image_embeddings come with edge_features, of the model's own method.")
        output = super().forward(**kwargs)
        output.pred_masks = self.edges(output.pred_masks, edge_features)
        return output


@dataclass(frozen=True)
class GuidedEmbedding(SamEmbedding):
    """One encoded photograph, and what it looks like where its masks end."""

    guide: Guide


class EmbeddedSegmenter(SamSegmenter):
    """`SamSegmenter` around an `EmbeddedSamModel`; its masks are drawn along the photograph's edges, without specks."""

    def encode(self, images: Sequence[np.ndarray]) -> list[SamEmbedding]:
        """See `SamFamily`."""
        return [
            GuidedEmbedding(one.size_hw, one.features, one.input_size_hw, Guide.of(image))
            for one, image in zip(super().encode(images), images, strict=True)
        ]

    def image_features(self, pixels: Tensor) -> Sequence[Tensor]:
        embeddings = self.model.get_image_embeddings(pixels)
        edges = self.model.edge_features(pixels, embeddings)
        return [embeddings] if edges is None else [embeddings, edges]

    def decoder_features(self, features: Sequence[Tensor]) -> dict[str, Any]:
        embeddings, *edges = features
        return {"image_embeddings": embeddings} | ({"edge_features": edges[0]} if edges else {})

    def at_original_size(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """See `SamFamily`; along the photograph's edges where the embedding knows them."""
        if not isinstance(embedding, GuidedEmbedding):
            return super().at_original_size(logits, embedding)
        return bilinear(embedding.guide.redrawn(self.at_input_size(logits, embedding)), embedding.size_hw)

    def drawn(self, logits: Tensor, embedding: SamEmbedding) -> np.ndarray:
        """See `SamFamily`; without specks."""
        masks = super().drawn(logits, embedding)
        return np.stack([without_specks(mask) for mask in masks]) if len(masks) else masks


AutoConfig.register(EmbeddedSamConfig.model_type, EmbeddedSamConfig)
AutoModelForMaskGeneration.register(EmbeddedSamConfig, EmbeddedSamModel)
