"""Convolutional image encoders of the embedded models, with their features at every stride.

MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and EfficientNet-Lite2 (Google 2020; EfficientNet, arXiv
1905.11946, without squeeze-and-excitation, ReLU6 for swish): stacks of inverted residuals whose batch norms are folded
into plain convolutions with a bias, which is about 1.4 times faster to train on a CPU than transformers' classes.
"""

from dataclasses import dataclass
from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BackboneName = Literal["mobilenet_v2", "efficientnet_lite2"]
STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Stage:
    """Blocks of one shape; the first has the stride and changes the channels."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int = 3


@dataclass(frozen=True)
class Architecture:
    stages: tuple[Stage, ...]
    stem: int = 32  # channels after the first convolution, of stride 2
    head: int = 1280  # channels after the last, of 1 x 1

    @property
    def channels(self) -> dict[int, int]:
        """Channels of the deepest feature at each of `STRIDES`."""
        channels, stride = {}, 2
        for stage in self.stages:
            stride *= stage.stride
            channels[stride] = stage.channels
        return {n: channels[n] for n in STRIDES} | {32: self.head}


ARCHITECTURES: Final[dict[BackboneName, Architecture]] = {
    "mobilenet_v2": Architecture(  # table 2 of the paper, width 1.0
        (
            Stage(1, 16, 1, 1), Stage(6, 24, 2, 2), Stage(6, 32, 3, 2), Stage(6, 64, 4, 2), Stage(6, 96, 3, 1),
            Stage(6, 160, 3, 2), Stage(6, 320, 1, 1),
        )
    ),
    "efficientnet_lite2": Architecture(  # width 1.1, depth 1.2; stem, head, first and last stage are not deepened
        (
            Stage(1, 16, 1, 1), Stage(6, 24, 3, 2), Stage(6, 48, 3, 2, 5), Stage(6, 88, 4, 2), Stage(6, 120, 4, 1, 5),
            Stage(6, 208, 5, 2, 5), Stage(6, 352, 1, 1),
        )
    ),
}  # fmt: skip


class ConvReLU6(nn.Module):
    """Convolution with bias, padded as TensorFlow's SAME on an even input, and ReLU6 unless `linear`."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False):
        super().__init__()
        # On an even input TensorFlow gives a strided convolution one zero more at the end than at the beginning. Two
        # more zeros at the beginning and one at the end give the same outputs and one row and column before them,
        # without a copy of the input.
        self.pads_end = stride == 2
        padding = (kernel + 1) // 2 if self.pads_end else kernel // 2
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding, groups=groups)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.pads_end:
            x = x[:, :, 1:, 1:]
        return x if self.linear else F.relu6(x, inplace=True)


class InvertedResidual(nn.Module):
    """Expand, filter per channel, project; added to the input when the shapes agree."""

    def __init__(self, n_in: int, n_out: int, stride: int, expansion: int, kernel: int):
        super().__init__()
        hidden = n_in * expansion
        expand = [ConvReLU6(n_in, hidden)] if expansion > 1 else []
        depthwise = ConvReLU6(hidden, hidden, kernel, stride, groups=hidden)
        self.layers = nn.Sequential(*expand, depthwise, ConvReLU6(hidden, n_out, linear=True))
        self.residual = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Backbone(nn.Module):
    """The convolutional part of one of `ARCHITECTURES`.

    `forward` takes float [B, 3, H, W], RGB in [-1, 1], H and W multiples of 32, and returns
    {stride n: [B, channels[n], H / n, W / n] for n of `STRIDES`}.
    """

    def __init__(self, name: BackboneName = "mobilenet_v2") -> None:
        super().__init__()
        architecture = ARCHITECTURES[name]
        self.channels = architecture.channels
        self.stem = ConvReLU6(3, architecture.stem, kernel=3, stride=2)
        blocks, n_in = [], architecture.stem
        self.stride_after = []  # cumulative stride after each block
        stride = 2
        for stage in architecture.stages:
            for i in range(stage.blocks):
                block_stride = stage.stride if i == 0 else 1
                blocks.append(InvertedResidual(n_in, stage.channels, block_stride, stage.expansion, stage.kernel))
                n_in, stride = stage.channels, stride * block_stride
                self.stride_after.append(stride)
        self.blocks = nn.ModuleList(blocks)
        self.head = ConvReLU6(n_in, architecture.head)

    def forward(self, x: Tensor) -> dict[int, Tensor]:
        """`x` float [B, 3, S, S], RGB in [-1, 1] -> stride n -> features [B, channels[n], S / n, S / n]."""
        if x.shape[-1] % 32 or x.shape[-2] % 32:
            raise ValueError(f"The image encoder takes sides that are multiples of 32, got {tuple(x.shape[-2:])}")
        features: dict[int, Tensor] = {}
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for block, stride in zip(self.blocks, self.stride_after, strict=True):
            x = block(x)
            features[stride] = x
        del features[2]
        features[32] = self.head(x)
        return features
