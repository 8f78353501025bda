"""What every mask head offers."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from aas.heads.features import HeadShape, MaskLogits, PhraseFeatures
from aas.heads.losses import mask_loss
from aas.records import View


class MaskHead(nn.Module, ABC):
    """A network from what was captured of phrases to their masks.

    `kind`: its name in `aas.registry.MASK_HEADS`. `needs_eyes`: whether it looks at layers of the vision encoder, and
    at its pixels; `redraws`: whether it is made with a segmenter, by which it redraws its masks; `chooses`: whether it
    chooses among that one's proposals; `sources`: names of the map sources that it looks at.
    """

    kind: ClassVar[str]
    needs_eyes: ClassVar[bool] = False
    redraws: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    sources: ClassVar[tuple[str, ...]] = ()

    def __init__(self, shape: HeadShape):
        super().__init__()
        self.shape = shape

    @property
    def of_segmenter(self) -> bool:
        """Whether it was made with a segmenter, beside which alone it is of use."""
        return getattr(self, "refiner", None) is not None

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What it was made with, beside the shape and a segmenter: plain values, by the names of its arguments."""

    @abstractmethod
    def logits(self, images: Sequence[PhraseFeatures]) -> Tensor:
        """Of all phrases of photographs whose tensors are equally large, image after image: float [P, h, w] over each
        one's view."""

    def refined(self, image: PhraseFeatures, coarse: MaskLogits) -> list[MaskLogits]:
        """What is made of the logits of one photograph's phrases, each better than those before it."""
        return []

    def loss(self, image: PhraseFeatures, stages: Sequence[MaskLogits], truth: Tensor) -> Tensor:
        """A scalar, of what `forward` made of one photograph's phrases; `truth` as in `mask_loss`."""
        return mask_loss(stages, truth, image.image_hw)

    def forward(self, images: Sequence[PhraseFeatures]) -> list[list[MaskLogits]]:
        """Of each photograph the logits of its phrases, coarse first, the best last; all of them are trained.

        A photograph's result does not depend on the others. One without phrases gets logits of none. Raises ValueError
        for what was captured of another LMM than the head's.
        """
        found: dict[int, list[MaskLogits]] = {}
        for group in _alike(images):
            some = [images[i] for i in group]
            for one in some:
                self.check(one)
            parts = self.logits(some).split([len(one.attention) for one in some])
            for i, one, values in zip(group, some, parts, strict=True):
                coarse = MaskLogits(values, View(tuple(values.shape[-2:]), one.view.box_xyxy))
                found[i] = [coarse, *(self.refined(one, coarse) if len(values) else [])]
        return [found[i] for i in range(len(images))]

    def check(self, image: PhraseFeatures) -> None:
        """ValueError for what was captured of another LMM, or lacks what this head needs."""
        shape = self.shape
        there = {image.attention.shape[1]} | {-states.shape[0] for states in image.states}
        widths = {states.shape[2] for states in image.states}
        if there - {shape.n_channels, -shape.n_layers} or widths - {shape.hidden_size}:
            raise ValueError(
                f"The head was made for an LMM of {shape.n_layers} layers, {shape.n_heads} heads and width "
                f"{shape.hidden_size}; what was captured is of another one."
            )
        if self.needs_eyes and (image.eyes is None or image.pixels is None):
            raise ValueError(
                "The head needs layers of the vision encoder and the pixels that it saw; neither was kept."
            )


class TextMixing(nn.Module):
    """A phrase's tokens: their states of all layers, in learned shares, in the head's width.

    x_t = W sum_l softmax(w)_l h_lt + b, w of one number a layer, all 1 at first (arXiv 2406.05821, section 3).
    """

    def __init__(self, shape: HeadShape, width: int):
        super().__init__()
        self.layer_weights = nn.Parameter(torch.ones(shape.n_layers))
        self.project = nn.Linear(shape.hidden_size, width)

    def forward(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Of each phrase [L, T, D]: [T, width]."""
        if not states:
            return []
        shares = self.layer_weights.softmax(0)
        together = torch.cat(list(states), dim=1).to(self.project.weight.dtype)
        mixed = self.project(torch.einsum("l,ltd->td", shares, together))
        return list(mixed.split([one.shape[1] for one in states]))


def _alike(images: Sequence[PhraseFeatures]) -> list[list[int]]:
    """Indices of the photographs whose tensors can be put together."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for i, one in enumerate(images):
        groups[one.attention.shape[1:], one.pixels is None or one.pixels.shape].append(i)
    return list(groups.values())
