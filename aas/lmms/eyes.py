"""Layers of a vision encoder, brought to the language model's width by the LMM's own projector, or layers of two of
them in pairs; blocks of a convolutional encoder, which no projector fits, as they are."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

TOWERS, PROJECTORS = ("vision_tower", "vision_model"), ("multi_modal_projector", "aligner")


class Eyes:
    """Looks on while a model sees: the blocks of its vision encoder numbered `layers(n)`, of n.

    Raises ValueError for a model whose encoder is no stack of blocks with a projector of single layers behind it.
    """

    def __init__(self, model: PreTrainedModel, layers: Callable[[int], tuple[int, ...]]):
        inner = getattr(model, "model", model)
        tower, self.projector = (_part(inner, names) for names in (TOWERS, PROJECTORS))
        stacks = [module for module in tower.modules() if isinstance(module, nn.ModuleList)] if tower else []
        if self.projector is None or not stacks:
            raise ValueError(
                f"{type(model).__name__}: its vision encoder is no stack of blocks with a projector behind."
            )
        self.blocks = max(stacks, key=len)
        self.layers = layers(len(self.blocks))
        self.widest = max(getattr(tower.config, "block_widths", None) or (0,))  # of a convolutional encoder
        self.seen: dict[int, Tensor] = {}
        self.watched = [(self.blocks, self.layers, self.seen)]
        self.projected: Tensor | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        hooks = [
            blocks[i].register_forward_hook(partial(_see, seen, i))
            for blocks, layers, seen in self.watched
            for i in set(layers)
        ]
        self._hooks = [*hooks, self.projector.register_forward_pre_hook(self._enter, with_kwargs=True)]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.projected = arguments[0] if arguments else next(iter(named.values()))

    @torch.no_grad()
    def of_image(self, image: int, grid_hw: tuple[int, int]) -> Tensor:
        """Of an image of the batch, float32 [K, D, h, w], behind the pass, when nobody looks on any more."""
        if self.widest:
            return torch.stack([self._pooled(self.seen[i][image], grid_hw) for i in self.layers])
        height, width = grid_hw
        assert self.projected is not None
        if self.projected.shape[1] != height * width or self.projected.shape[2] != self.seen[self.layers[0]].shape[2]:
            raise ValueError(
                "The vision encoder's cells are not those of the grid, or several layers are projected as one."
            )
        # Of a class token in front the projector sees nothing.
        states = torch.stack([self.seen[i][image, -height * width :] for i in self.layers])
        return self.projector(states).float().transpose(1, 2).unflatten(2, grid_hw).cpu()

    def _pooled(self, block: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """[C, H, W] of a block: the mean over each cell, zeros behind its channels, float32 [widest, h, w]."""
        cells = F.adaptive_avg_pool2d(block.float(), grid_hw).cpu()
        return F.pad(cells, (0, 0, 0, 0, 0, self.widest - len(cells)))


class TwoEyes(Eyes):
    """Of a model like DeepSeek-VL-7B, which looks at few and at many pixels at once. Blocks of the second encoder,
    `high_layers(n)` of n, go the way of its last one: neck, projection to the first one's cells, and with a block of
    that through the aligner."""

    def __init__(
        self,
        model: PreTrainedModel,
        layers: Callable[[int], tuple[int, ...]],
        high_layers: Callable[[int], tuple[int, ...]],
    ):
        super().__init__(model, layers)
        self.inner: Any = getattr(model, "model", model)
        self.encoder = self.inner.high_res_vision_model.vision_encoder
        self.high_layers, self.high_seen = high_layers(len(self.encoder.layers)), dict[int, Tensor]()
        self.watched.append((self.encoder.layers, self.high_layers, self.high_seen))

    @torch.no_grad()
    def of_image(self, image: int, grid_hw: tuple[int, int]) -> Tensor:
        states = torch.stack([self.seen[i][image] for i in self.layers])
        high = torch.stack([self.high_seen[i][image] for i in self.high_layers])
        cells = self.inner.high_res_vision_proj(self.encoder.neck(high)).flatten(2).transpose(1, 2)
        if cells.shape[1] != grid_hw[0] * grid_hw[1]:
            raise ValueError("The second vision encoder's cells are not those of the grid.")
        return self.projector(states, cells).float().transpose(1, 2).unflatten(2, grid_hw).cpu()


def _see(seen: dict[int, Tensor], index: int, _: nn.Module, __: Any, output: Any) -> None:
    seen[index] = output if isinstance(output, Tensor) else output[0]


def _part(model: nn.Module, names: Sequence[str]) -> Any:
    return next((getattr(model, name) for name in names if getattr(model, name, None) is not None), None)
