"""Mllama (Llama 3.2 Vision): the image is not in the prompt, some layers attend to it across."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from transformers.models.mllama.modeling_mllama import MllamaTextCrossAttention

from aas.geometry import canvas_view, stitched_tiles
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid


class Mllama(LMM):
    """One view, "tiles": the tiles that hold the image, stitched; the last may hold padding beyond its edge.

    The keys are tile after tile, a class token first in each, up to the most tiles that an image may have; those that
    an image does not fill are masked. Only the layers with cross-attention count.
    """

    cross_attention = True
    assumed_settings = {**LMM.assumed_settings, "do_pad": True}

    def records(self, module: nn.Module) -> bool:
        return isinstance(module, MllamaTextCrossAttention)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        vision = self.model.config.vision_config
        rows, columns = vision.supported_aspect_ratios[int(inputs["aspect_ratio_ids"]) - 1]
        tile = inputs["pixel_values"].shape[-1]
        side = tile // vision.patch_size
        canvas_hw = (rows * tile, columns * tile)
        view = canvas_view((rows * side, columns * side), image_hw, canvas_hw, tile)
        keys = torch.arange(rows * columns * (side * side + 1)).reshape(-1, side * side + 1)[:, 1:]
        positions = stitched_tiles(keys, (rows, columns), (side, side))
        return [TokenGrid(replace(view, name="tiles"), positions)]

    def with_answer(self, inputs: dict[str, Tensor], answer_ids: Tensor) -> dict[str, Tensor]:
        """An answer's tokens see the tiles that the prompt's last token sees."""
        mask = inputs["cross_attention_mask"]
        longer = super().with_answer(inputs, answer_ids)
        longer["cross_attention_mask"] = torch.cat([mask, mask[:, -1:].expand(-1, len(answer_ids), -1, -1)], dim=1)
        return longer
