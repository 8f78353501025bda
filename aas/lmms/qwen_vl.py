"""Qwen2-VL to Qwen3-VL, and GLM-4.1V to GLM-4.6V, which see alike: one image, one grid of any shape, row-major."""

from typing import Any

from torch import Tensor
from transformers import ProcessorMixin

from aas.geometry import stretched_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid
from aas.lmms.processors import load_images_only


class QwenVL(LMM):
    """The image is resized to whole tokens, its area kept within the processor's bounds, so it is a little stretched.

    `image_grid_thw` counts patches; merge x merge of them make one token. The encoder's own order (blocks of a token's
    patches, windows) is undone before the language model.
    """

    assumed_settings = {}  # `image_grid_thw` tells what was done

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        return load_images_only(source, revision)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        merge = self.processor.image_processor.merge_size
        _, height, width = inputs["image_grid_thw"][0].tolist()
        view = stretched_view((height // merge, width // merge), image_hw)
        return [TokenGrid(view, self.image_positions(inputs))]

    def forward_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        # No position ids: the model derives its own, in time, height and width, from mm_token_type_ids.
        return {"use_cache": False, "logits_to_keep": 1}
