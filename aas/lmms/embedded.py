"""The embedded LMM: transformers' own LLaVA whose vision encoder is a small convolutional one.

Importing this file registers the tower with AutoConfig and AutoModel, so that
`LlavaForConditionalGeneration.from_pretrained` finds it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from aas.backbones import ARCHITECTURES, Backbone, BackboneName

STRIDE = 32


class MobileTowerConfig(PreTrainedConfig):
    """`image_size` in pixels, a multiple of 32: the grid is image_size / 32 on both sides."""

    model_type = "aas_mobile_tower"
    backbone: BackboneName = "mobilenet_v2"
    image_size: int = 384
    position_dim: int = 64

    @property
    def patch_size(self) -> int:
        return STRIDE

    @property
    def block_widths(self) -> tuple[int, ...]:
        """Channels behind each block of the convolutional stack."""
        return tuple(stage.channels for stage in ARCHITECTURES[self.backbone].stages for _ in range(stage.blocks))

    @property
    def n_channels(self) -> int:
        """Channels of a cell that come from the photograph: the last layer, the 2 x 2 stride-16 cells under it."""
        channels = ARCHITECTURES[self.backbone].channels
        return channels[32] + 4 * channels[16]

    @property
    def hidden_size(self) -> int:
        """Channels of a cell with its learned position."""
        return self.n_channels + self.position_dim


class MobileTower(PreTrainedModel):
    """Pixels to one feature vector per cell of 32 x 32 pixels.

    Takes float [B, 3, S, S], RGB in [-1, 1]; returns [B, (S/32)^2, hidden_size], row-major.
    """

    config: MobileTowerConfig
    config_class = MobileTowerConfig
    main_input_name = "pixel_values"
    _no_split_modules = ["Backbone"]

    def __init__(self, config: MobileTowerConfig):
        super().__init__(config)
        self.backbone = Backbone(config.backbone)
        # Brings every channel to zero mean and unit variance; set from the training photographs.
        self.scale = nn.Parameter(torch.ones(config.n_channels))
        self.shift = nn.Parameter(torch.zeros(config.n_channels))
        self.position = nn.Parameter(torch.zeros((config.image_size // STRIDE) ** 2, config.position_dim))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own initialisation stands: the weights come from ImageNet or from a checkpoint."""

    def forward(self, pixel_values: Tensor, **kwargs: object) -> BaseModelOutput:
        features = self.backbone(pixel_values)
        fine = F.pixel_unshuffle(features[16], 2)
        cells = torch.cat([features[32], fine], dim=1).flatten(2).transpose(1, 2)
        cells = cells * self.scale + self.shift
        position = self.position.expand(len(cells), -1, -1).to(cells.dtype)
        cells = torch.cat([cells, position], dim=-1)
        return BaseModelOutput(last_hidden_state=cells, hidden_states=(cells,))


AutoConfig.register(MobileTowerConfig.model_type, MobileTowerConfig, exist_ok=True)
AutoModel.register(MobileTowerConfig, MobileTower, exist_ok=True)
