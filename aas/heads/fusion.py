"""From the stages of a pyramid, and what a stem sees of the pixels, to one fine map (as in RefineNet and DPT)."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from aas.heads.features import HeadShape

Norm = Literal["group", "batch"]
LARGE = 512  # pixels: of a larger input the stem halves once more
WIDE = 4096  # from this width of the LMM on, that of 7B, the stem is two convolutions deeper


def norm_of(norm: Norm, channels: int) -> nn.Module:
    """Of one group, whose result depends on its own sample alone, or of the batch."""
    return nn.GroupNorm(1, channels) if norm == "group" else nn.BatchNorm2d(channels)


class Stem(nn.Module):
    """Pixels [B, 3, H, W] to [B, width, H/4, W/4], or an eighth of a large input's sides.

    The published one has a batch norm behind each convolution of 3 x 3, and none behind the others' end.
    """

    def __init__(self, shape: HeadShape, width: int, norm: Norm):
        super().__init__()
        is_published = norm == "batch"
        layers: list[nn.Module] = []
        for i, stride in enumerate(_strides(shape, is_published)):
            convolution, relu = _conv_relu(width if i else 3, width, stride)
            layers += [convolution, norm_of(norm, width), relu] if is_published else [convolution, relu]
        layers += [nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(width, 2 * width, 1)]
        self.layers = nn.Sequential(*layers, *([] if is_published else [norm_of(norm, 2 * width)]))
        self.narrow = nn.Sequential(nn.Conv2d(2 * width, width, 1), norm_of(norm, width), nn.ReLU())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.narrow(self.layers(pixels))


class TopDown(nn.Module):
    """A pyramid, fine stages first, to logits [P, 1, H, W]: each stage is refined, made twice as large, or as the next
    one is, and added to that."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.refine = nn.ModuleList(Refine(width, norm) for _ in range(4))  # deepest first
        self.skip = Residual(width, norm)  # shared by all
        self.before = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), norm_of(norm, width), nn.Dropout(0.1)
        )
        self.after = nn.Sequential(nn.Conv2d(width, width // 2, 3, padding=1), nn.ReLU(), nn.Conv2d(width // 2, 1, 1))

    def forward(self, pyramid: Sequence[Tensor], size_hw: Sequence[int]) -> Tensor:
        """`size_hw`: the pixels' size, which the logits have at most."""
        *skips, x = pyramid
        for refine, skip in zip(self.refine, [*reversed(skips), None], strict=True):
            doubled = (2 * x.shape[2], 2 * x.shape[3])
            # The stages of an odd side do not fit by doubling.
            x = refine(x, doubled if skip is None else tuple(skip.shape[2:]))
            x = x if skip is None else x + self.skip(skip)
        x = self.before(x)
        size = [min(2 * length, most) for length, most in zip(x.shape[2:], size_hw, strict=True)]
        return self.after(F.interpolate(x, size, mode="bilinear", align_corners=False))


class Refine(nn.Module):
    """A residual unit, another size, a convolution."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.residual = Residual(width, norm)
        self.out = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size_hw: tuple[int, ...]) -> Tensor:
        return self.out(F.interpolate(self.residual(x), size_hw, mode="bilinear", align_corners=False))


class Residual(nn.Module):
    """x + two convolutions of it, in front of the first of which is a ReLU, but for the published one."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        first = [] if norm == "batch" else [nn.ReLU()]
        convolutions = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
        self.layers = nn.Sequential(*first, convolutions[0], nn.ReLU(), convolutions[1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def _conv_relu(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]


def _strides(shape: HeadShape, is_published: bool) -> tuple[int, ...]:
    halves = shape.input_side > LARGE
    if is_published:
        return (2, 1, 2, 1, 1) if halves else (2, 1, 1)
    return (2, 1, 1, 1 + halves, 1) if halves or shape.hidden_size >= WIDE else (2, 1, 1)
