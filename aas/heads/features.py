"""What a mask head is given of a photograph, and what it makes of it."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from aas.geometry import resampled, stretched_view
from aas.records import View
from aas.segmenters.proposals import Proposals
from aas.segmenters.sam_records import SamEmbedding


@dataclass(frozen=True)
class HeadShape:
    """What a head must know of the LMM that it is trained on.

    `n_layers`, `n_heads` and `hidden_size` are those of its language model, `n_views` the grids whose maps are stacked
    (2: a coarse one, brought to the fine one's grid, in front of that). `input_side`: pixels of its eyes' square input;
    `eye_width`: channels of their widest block where they are convolutional (0: all blocks are as wide as the last).
    """

    n_layers: int
    n_heads: int
    hidden_size: int
    n_views: int = 1
    input_side: int = 336
    eye_width: int = 0

    @classmethod
    def of(cls, config: PreTrainedConfig, n_views: int = 1) -> Self:
        """Of an LMM's config. An encoder that takes any size has no input side: 0."""
        text = config.get_text_config()
        vision = getattr(config, "high_res_vision_config", None) or getattr(config, "vision_config", None)
        side = getattr(vision, "image_size", None) or 0
        side = side if isinstance(side, int) else max(side)
        width = max(getattr(vision, "block_widths", None) or (0,))
        return cls(text.num_hidden_layers, text.num_attention_heads, text.hidden_size, n_views, side, width)

    @property
    def projected_width(self) -> int:
        """Channels of what a head is given of each block of the eyes."""
        return self.eye_width or self.hidden_size

    @property
    def n_channels(self) -> int:
        """Attention maps of a phrase."""
        return self.n_views * self.n_layers * self.n_heads


@dataclass(frozen=True)
class PhraseFeatures:
    """What was captured of the P phrases of one photograph.

    `attention` float32 [P, C, h, w]: rows of the softmax, the mean over a phrase's tokens, a channel for each layer and
    head, layer after layer. `states`: of each phrase [L, T, D], what leaves each layer at its T tokens, the last
    layer's behind the final norm. `view`: where the grid lies on the photograph of `image_hw` pixels.

    Some heads need more: `eyes` [K, D, h, w], layers of the vision encoder, shallow ones first, which the LMM's own
    projector brought to its width (of a convolutional encoder, whose blocks no projector fits, their means over the
    grid's cells, zeros behind the channels that a block has less than the widest); `pixels` [3, H, W], the encoder's
    input, which covers the same view; `embedding`, of the segmenter that redraws the masks, and its `proposals`;
    `maps` float32 [P, S, h, w], of the map sources that the head names. With these, attention is of the rows that
    predict a phrase's tokens, as the sources need it. `names`: what each phrase names, where heads may hold that
    different things have different masks; not known while one is trained. Raises ValueError for parts that do not fit
    each other.
    """

    attention: Tensor
    states: tuple[Tensor, ...]
    view: View
    image_hw: tuple[int, int]
    eyes: Tensor | None = None
    pixels: Tensor | None = None
    embedding: SamEmbedding | None = None
    maps: Tensor | None = None
    proposals: Proposals | None = None
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.states):
            raise ValueError(f"{len(self.attention)} phrases have attention, {len(self.states)} have hidden states.")
        if self.attention.shape[-2:] != self.view.size_hw:
            raise ValueError(f"The maps are {tuple(self.attention.shape[-2:])}, their view {self.view.size_hw} (h, w).")
        if any(states.shape[1] == 0 for states in self.states):
            raise ValueError("A phrase has no tokens, so that nothing was captured of it.")

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        embedding = self.embedding
        if embedding is not None:
            embedding = replace(embedding, features=tuple(one.to(device) for one in embedding.features))
        parts = (self.eyes, self.pixels, self.maps)
        eyes, pixels, maps = (None if one is None else one.to(device) for one in parts)
        found = None if self.proposals is None else self.proposals.to(device)
        states = tuple(one.to(device) for one in self.states)
        attention = self.attention.to(device)
        moved = replace(self, attention=attention, states=states, embedding=embedding)
        return replace(moved, eyes=eyes, pixels=pixels, maps=maps, proposals=found)


@dataclass(frozen=True)
class MaskLogits:
    """`values` float [P, h, w], a mask where they are above 0; `view`: where they lie on the photograph."""

    values: Tensor
    view: View

    def onto(self, view: View) -> Tensor:
        """Float32 [P, H, W] at the cells of another view of the same photograph."""
        return resampled(self.values, self.view, view)

    def on_image(self, image_hw: tuple[int, int], size_hw: tuple[int, int] | None = None) -> Tensor:
        """Float32 [P, H, W] over the photograph of `image_hw` pixels: at each of them, or at `size_hw` cells."""
        return self.onto(stretched_view(size_hw or image_hw, image_hw))
