"""LLaVA 1.5 in transformers' format, and models shaped like it: one image, one grid, row-major."""

from torch import Tensor

from aas.geometry import without_rest
from aas.lmms.base import LMM
from aas.lmms.fitted import fitted_view
from aas.lmms.grids import TokenGrid


class Llava(LMM):
    """The view follows from how the processor fits the image into the tower's square input."""

    assumed_settings = {}  # all are read

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        patch = self.processor.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        grid_hw = (height // patch, width // patch)
        view = fitted_view(self.processor.image_processor, grid_hw, image_hw, (height, width))
        view = without_rest(view, (height, width), height % patch)
        return [TokenGrid(view, self.image_positions(inputs))]
