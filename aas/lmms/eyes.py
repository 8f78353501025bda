"""Layers of a vision encoder, brought to the language model's width by the LMM's own projector; blocks of a
convolutional encoder, which no projector fits, as they are."""

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
        if self.projector is None or not stacks or hasattr(inner, "high_res_vision_model"):
            raise ValueError(
                f"{type(model).__name__}: its vision encoder is no stack of blocks with a projector behind."
            )
        self.blocks = max(stacks, key=len)
        self.layers = layers(len(self.blocks))
        self.widest = max(getattr(tower.config, "block_widths", None) or (0,))  # of a convolutional encoder
        self.seen: dict[int, Tensor] = {}
        self.projected: Tensor | None = None
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        hooks = [self.blocks[i].register_forward_hook(partial(self._see, i)) for i in set(self.layers)]
        self._hooks = [*hooks, self.projector.register_forward_pre_hook(self._enter, with_kwargs=True)]
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _see(self, index: int, _: nn.Module, __: Any, output: Any) -> None:
        self.seen[index] = output if isinstance(output, Tensor) else output[0]

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


def _part(model: nn.Module, names: Sequence[str]) -> Any:
    return next((getattr(model, name) for name in names if getattr(model, name, None) is not None), None)
