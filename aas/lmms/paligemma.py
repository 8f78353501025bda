"""PaliGemma and PaliGemma 2: image and question see each other both ways, the answer is causal."""

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from aas.lmms.base import LMM
from aas.lmms.fitted import fitted_view
from aas.lmms.grids import TokenGrid


class PaliGemma(LMM):
    """One view: the whole image, stretched to the tower's square input.

    There is no chat template: the question is the prompt as it stands ("caption en", "answer en What is it?").
    """

    # The type 1 makes a token part of the answer; with 0 the prompt and earlier tokens would see it.
    answer_fill = {**LMM.answer_fill, "token_type_ids": 1}
    assumed_settings = {}  # all are read

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        text = f"{self.processor.image_token}{question}"
        inputs = dict(self.processor(images=Image.fromarray(image), text=text, return_tensors="pt"))
        del inputs["labels"]  # for training; they come unasked
        return inputs

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        height, width = inputs["pixel_values"].shape[-2:]
        patch = self.model.config.vision_config.patch_size
        grid_hw = (height // patch, width // patch)
        view = fitted_view(self.processor.image_processor, grid_hw, image_hw, (height, width))
        return [TokenGrid(view, self.image_positions(inputs))]

    def forward_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Positions count from 1, as in generation."""
        arguments = super().forward_arguments(inputs)
        return {**arguments, "position_ids": arguments["position_ids"] + 1}
