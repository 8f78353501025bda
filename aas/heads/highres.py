"""The head of HG-LMM: what the vision encoder saw at many depths, filtered by the words, and fine pixels; no SAM."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.fusion import LARGE, Norm, Stem, TopDown
from aas.heads.head import MaskHead, TextMixing

DEPTHS = (3, 6, 9, 12, 15, 18, 20)  # of 24 blocks of the vision encoder those that are looked at, and the last
HIGH_DEPTHS = (1, 2, 4, 5, 7, 9, 10)  # of 12 blocks of a second encoder, of more pixels, those that go with them
N_EYES, N_STAGES = len(DEPTHS) + 1, 4  # paired into stages of the pyramid
CHANNELS_THAT_FIT = 6  # times the width: attention of more or fewer channels is brought to so many first


def eye_layers(n_layers: int) -> tuple[int, ...]:
    """Which blocks of a vision encoder are looked at, shallow ones first: of 24 those that were published."""
    return *(n_layers * depth // 24 for depth in DEPTHS), n_layers - 1


def high_eye_layers(n_layers: int) -> tuple[int, ...]:
    """The same of a second encoder, one for each of the first."""
    return *(n_layers * depth // 12 for depth in HIGH_DEPTHS), n_layers - 1


class HighResHead(MaskHead):
    """HG-LMM's: projected layers of the eyes, convolutions that the words make, attention, and a stem on the pixels,
    fused from coarse to fine.

    `width` of the pyramid, of which all others are multiples. `norm`: group norm; or batch, which is the published
    network to the letter, whose figures depend on the phrases of a batch while it trains.
    """

    kind = "highres"
    needs_eyes = True

    def __init__(self, shape: HeadShape, width: int = 64, norm: Norm = "group"):
        super().__init__(shape)
        self.width, self.norm = width, norm
        self.text = TextMixing(shape, 4 * width)
        self.eyes = EyeFeatures(shape, width)
        self.filter = WordFilter(width)
        fits = shape.n_channels == CHANNELS_THAT_FIT * width
        self.fit = nn.Identity() if fits else nn.Conv2d(shape.n_channels, CHANNELS_THAT_FIT * width, 3, padding=1)
        self.attention = nn.Conv2d(CHANNELS_THAT_FIT * width, width * 3 // 2, 3, padding=1)
        self.shallow = nn.Conv2d(width * 3 // 2, 2 * width, 3, padding=1)
        self.deeper = nn.Conv2d(3 * width, 2 * width, 3, padding=1)  # shared by the stages that see attention
        self.narrow = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for _ in range(N_STAGES))
        is_small = shape.input_side <= LARGE
        self.halve = nn.Conv2d(width, width, 3, stride=2, padding=1) if norm == "batch" and is_small else None
        self.stem = Stem(shape, width, norm)
        self.top_down = TopDown(width, norm)

    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "norm": self.norm}

    def logits(self, images: Sequence[PhraseFeatures]) -> Tensor:
        eyes = torch.stack([one.eyes for one in images if one.eyes is not None]).to(self.shallow.weight.dtype)
        pixels = torch.stack([one.pixels for one in images if one.pixels is not None]).to(self.shallow.weight.dtype)
        counts = [len(one.attention) for one in images]
        if not sum(counts):
            return pixels.new_zeros(0, *pixels.shape[2:])
        owner = torch.arange(len(images), device=pixels.device).repeat_interleave(
            torch.tensor(counts, device=pixels.device)
        )
        words = self.text([states for one in images for states in one.states])
        text = torch.stack([one.mean(0) for one in words])
        seen = self.filter(self.eyes(eyes)[owner], text)  # [P, K, C, h, w]
        attention = torch.cat([one.attention for one in images]).to(seen.dtype)
        stem = self.stem(pixels)
        return self.top_down(self._pyramid(seen, attention, stem[owner]), pixels.shape[2:])[:, 0]

    def _pyramid(self, seen: Tensor, attention: Tensor, stem: Tensor) -> list[Tensor]:
        """Four stages [P, width, h, w], fine and shallow first."""
        attention = self.attention(self.fit(attention))
        stages = seen.unflatten(1, (N_STAGES, -1)).flatten(2, 3).unbind(1)  # the layers of a pair side by side
        mixed = [self.shallow(stages[0]), *(self.deeper(torch.cat([one, attention], dim=1)) for one in stages[1:])]
        height, width = stem.shape[2:]
        sizes = [(-(-height >> i), -(-width >> i)) for i in range(N_STAGES)]
        pyramid = [
            F.interpolate(narrow(one), size_hw, mode="bilinear", align_corners=False)
            for narrow, one, size_hw in zip(self.narrow, mixed, sizes, strict=True)
        ]
        pyramid[0] = pyramid[0] + stem
        if self.halve is not None:  # the published deepest stage is made by a convolution
            pyramid[-1] = self.halve(self.narrow[-1](mixed[-1]))
        return pyramid

    def check(self, image: PhraseFeatures) -> None:
        super().check(image)
        assert image.eyes is not None
        wanted = (N_EYES, self.shape.projected_width)
        if image.eyes.shape[:2] != wanted:
            raise ValueError(
                f"The head looks at {N_EYES} layers of the vision encoder in width {wanted[1]}, not at "
                f"{image.eyes.shape[0]} in width {image.eyes.shape[1]}."
            )


class EyeFeatures(nn.Module):
    """Layers of the vision encoder [B, K, D, h, w] in the head's width, [B, K, 4 width, h, w]; one network for all,
    behind a matrix for each layer that the LMM's projector does not fit."""

    def __init__(self, shape: HeadShape, width: int):
        super().__init__()
        hidden_size = shape.hidden_size
        own = N_EYES if shape.eye_width else 0
        self.projections = nn.ModuleList(nn.Conv2d(shape.eye_width, hidden_size, 1) for _ in range(own))
        self.norm = nn.LayerNorm(hidden_size)
        narrow = max(hidden_size // 16, 8)
        self.layers = nn.Sequential(
            nn.Conv2d(hidden_size, narrow, 1), nn.ReLU(),
            nn.Conv2d(narrow, 3 * width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(3 * width, 4 * width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, eyes: Tensor) -> Tensor:
        if self.projections:
            layers = zip(self.projections, eyes.unbind(1), strict=True)
            eyes = torch.stack([project(layer) for project, layer in layers], dim=1)
        flat = self.norm(eyes.flatten(0, 1).movedim(1, -1)).movedim(-1, 1)
        return self.layers(flat).unflatten(0, eyes.shape[:2])


class WordFilter(nn.Module):
    """Two 1 x 1 convolutions of which a phrase's words make the weights, 4 width -> 3/4 width, with a norm behind."""

    def __init__(self, width: int):
        super().__init__()
        self.before, self.after = 4 * width, width * 3 // 4
        self.sizes = [self.before * self.after, self.after, self.after**2, self.after]
        self.weights = nn.Sequential(
            nn.Linear(self.before, self.before), nn.ReLU(), nn.Linear(self.before, sum(self.sizes))
        )
        self.norm = nn.LayerNorm(self.after)

    def forward(self, eyes: Tensor, text: Tensor) -> Tensor:
        """`eyes` [P, K, 4 width, h, w] and `text` [P, 4 width] of phrases: [P, K, 3/4 width, h, w]."""
        first, first_bias, second, second_bias = self.weights(text).split(self.sizes, dim=1)
        flat = eyes.flatten(3)
        x = torch.einsum("poc,pkcn->pkon", first.unflatten(1, (self.after, self.before)), flat)
        x = (x + first_bias[:, None, :, None]).relu()
        x = torch.einsum("poc,pkcn->pkon", second.unflatten(1, (self.after, self.after)), x)
        x = self.norm((x + second_bias[:, None, :, None]).transpose(2, 3)).transpose(2, 3)
        return x.unflatten(3, eyes.shape[3:])
