"""The embedded segmenter: SAM's prompt encoder and mask decoder on a small image encoder.

`EmbeddedSamModel` is transformers' SamModel (Kirillov et al. 2023, arXiv 2304.02643) with its ViT replaced
by a convolutional one and a neck; prompts, masks and scores go through the very same classes.
`scripts/embedded/train_segmenter.py` made the weights.
"""

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
    SamLayerNorm,
    SamMaskDecoder,
    SamPositionalEmbedding,
    SamPreTrainedModel,
    SamPromptEncoder,
    SamVisionEncoderOutput,
)

from aas.backbones import Backbone, BackboneName


class EmbeddedSamVisionConfig(PreTrainedConfig):
    """Sizes of the image encoder; `scale` and `num_pos_feats` are SAM's random Fourier features."""

    model_type = "embedded_sam_vision"
    base_config_key = "vision_config"

    backbone: BackboneName = "mobilenet_v2"
    image_size: int = 512
    patch_size: int = 16
    output_channels: int = 128
    num_neck_blocks: int = 3
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


class EmbeddedSamModel(SamModel):
    """SamModel with `EmbeddedSamVisionEncoder`; `forward`, `from_pretrained` and the rest are SamModel's."""

    config_class = EmbeddedSamConfig

    def __init__(self, config: EmbeddedSamConfig):
        # Not SamModel's own __init__: it would build a ViT only to throw it away.
        SamPreTrainedModel.__init__(self, config)
        self.shared_image_embedding = SamPositionalEmbedding(config.vision_config)
        self.vision_encoder = EmbeddedSamVisionEncoder(config.vision_config)
        self.prompt_encoder = SamPromptEncoder(config)
        config.mask_decoder_config._attn_implementation = config._attn_implementation
        self.mask_decoder = SamMaskDecoder(config.mask_decoder_config)
        self.post_init()


AutoConfig.register(EmbeddedSamConfig.model_type, EmbeddedSamConfig)
AutoModelForMaskGeneration.register(EmbeddedSamConfig, EmbeddedSamModel)
