"""The head of F-LMM (arXiv 2406.05821): every layer's and head's map through a U-Net, its masks redrawn by SAM."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from aas.heads.features import HeadShape, MaskLogits, PhraseFeatures
from aas.heads.head import MaskHead, TextMixing
from aas.heads.refiner import SamRefiner

STAGES = 4  # each half as large as the one before, and twice as wide


class UNetHead(MaskHead):
    """F-LMM's: attention of all layers and heads as channels, a U-Net, and SAM, which is told of mask, box and words.

    `width` of its first stage; `side`: maps are made so large on their long side before they enter, unless they are.
    `segmenter`: a model of transformers with SAM's prompt encoder and mask decoder, copies of which redraw the masks,
    if they are to be redrawn.
    """

    kind = "unet"
    redraws = True

    def __init__(self, shape: HeadShape, width: int = 64, side: int = 64, segmenter: PreTrainedModel | None = None):
        super().__init__(shape)
        self.width, self.side = width, side
        self.unet = UNet(shape.n_channels, width)
        self.refiner = None if segmenter is None else SamRefiner(segmenter)
        self.text = None if self.refiner is None else TextMixing(shape, self.refiner.width)

    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "side": self.side}

    def logits(self, images: Sequence[PhraseFeatures]) -> Tensor:
        maps = torch.cat([one.attention for one in images])
        maps = maps / maps.sum((2, 3), keepdim=True).clamp(min=1e-12)
        factor = max(1.0, self.side / max(maps.shape[2:]))
        size_hw = [round(length * factor) for length in maps.shape[2:]]
        return self.unet(F.interpolate(maps, size_hw, mode="bilinear", align_corners=False))[:, 0]

    def refined(self, image: PhraseFeatures, coarse: MaskLogits) -> list[MaskLogits]:
        if self.refiner is None or self.text is None:
            return []
        if image.embedding is None:
            raise ValueError("The head redraws its masks with a segmenter, which has not encoded the photograph.")
        return [self.refiner(coarse, self.text(image.states), image.embedding)]


class UNet(nn.Module):
    """[P, channels, h, w] of any size to [P, 1, h, w] (Ronneberger et al. 2015, with group norm of one group)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        widths = [width << stage for stage in range(STAGES)]
        self.down = nn.ModuleList(
            nn.Sequential(_conv(before, after, 3), _conv(after, after, 3))
            for before, after in zip([channels, *widths], widths, strict=False)
        )
        pairs = list(itertools.pairwise(widths))  # shallow first, as the checkpoints have them
        self.narrow = nn.ModuleList(_conv(deep, shallow, 1) for shallow, deep in pairs)
        self.up = nn.ModuleList(
            nn.Sequential(_conv(2 * shallow, shallow, 3), _conv(shallow, shallow, 3)) for shallow, _ in pairs
        )
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        multiple = 1 << (STAGES - 1)
        x = F.pad(x.to(self.out.weight.dtype), (0, -width % multiple, 0, -height % multiple))
        skips: list[Tensor] = []
        for stage in self.down:
            skips.append(stage(F.max_pool2d(skips[-1], 2) if skips else x))
        x = skips.pop()
        for narrow, up, skip in zip(reversed(self.narrow), reversed(self.up), reversed(skips), strict=True):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = up(torch.cat([skip, narrow(larger)], dim=1))
        return self.out(x)[..., :height, :width]


def _conv(before: int, after: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(1, after), nn.ReLU())
