"""From the encoder's features to the language model's space."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from difflmm.encoder_config import DiffusionEncoderConfig


class SDCLIPBlock(nn.Module):
    """The U-Net's features, normalised and narrowed to a quarter of the language model's width, beside CLIP's; a
    two-layer perceptron over both; a learned position for each cell.

    Takes [B, unet channels, grid, grid] and [B, grid * grid, clip channels] (None without CLIP); returns
    [B, grid * grid, text_width], row-major.
    """

    def __init__(self, config: DiffusionEncoderConfig, text_width: int):
        super().__init__()
        narrow = text_width // 4
        self.norm = nn.LayerNorm(config.unet_channels)
        self.narrow = nn.Linear(config.unet_channels, narrow)  # a 1 x 1 convolution
        self.linear_1 = nn.Linear(narrow + config.clip_channels, text_width)
        self.linear_2 = nn.Linear(text_width, text_width)
        shape = (config.grid_side**2, text_width)
        self.positions = nn.Parameter(torch.zeros(shape)) if config.positions else None

    def forward(self, unet_features: Tensor, clip_features: Tensor | None) -> Tensor:
        """Image tokens [B, grid * grid, text_width], of one dtype with what they are made of."""
        cells = F.gelu(self.narrow(self.norm(unet_features.flatten(2).transpose(1, 2))))
        if clip_features is not None:
            cells = torch.cat([cells, clip_features], dim=-1)
        tokens = self.linear_2(F.gelu(self.linear_1(cells)))
        return tokens if self.positions is None else tokens + self.positions
