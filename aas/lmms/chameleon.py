"""Chameleon: the image is written as one grid of discrete tokens, row-major."""

import numpy as np
from PIL import Image
from torch import Tensor

from aas.geometry import centre_crop_view
from aas.lmms.base import LMM, TokenGrid


class Chameleon(LMM):
    """One view: the centre of the image; what the processor crops away has no tokens."""

    text_part = ""

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        cell = 2 ** (len(self.model.config.vq_config.channel_multiplier) - 1)  # the resolution halves at every level
        height, width = inputs["pixel_values"].shape[-2:]
        short = self.processor.image_processor.size["shortest_edge"]
        view = centre_crop_view((height // cell, width // cell), image_hw, short, height)
        return [TokenGrid(view, self.image_positions(inputs))]

    def inputs(self, image: np.ndarray, question: str) -> dict[str, Tensor]:
        """Chameleon has no chat template: the image follows the question, and the processor ends the turn."""
        text = question + self.processor.image_token
        return dict(self.processor(images=Image.fromarray(image), text=text, return_tensors="pt"))
