"""Chameleon: the image is written as one grid of discrete tokens, row-major."""

import numpy as np
from PIL import Image
from torch import Tensor

from aas.lmms.base import LMM
from aas.lmms.fitted import fitted_view
from aas.lmms.grids import TokenGrid


class Chameleon(LMM):
    """One view: the centre of the image; what the processor crops away has no tokens."""

    text_part = ""
    assumed_settings = {}  # all are read

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        cell = 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)  # the resolution halves at every level
        height, width = inputs["pixel_values"].shape[-2:]
        grid_hw = (height // cell, width // cell)
        view = fitted_view(self.processor.image_processor, grid_hw, image_hw, (height, width))
        return [TokenGrid(view, self.image_positions(inputs))]

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """Chameleon has no chat template: the image follows the question, and the processor ends the turn."""
        text = question + self.processor.image_token
        return dict(self.processor(images=Image.fromarray(image), text=text, return_tensors="pt"))
