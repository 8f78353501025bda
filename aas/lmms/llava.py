"""LLaVA 1.5 in transformers' format, and models shaped like it: one image, one grid, row-major."""

from torch import Tensor

from aas.geometry import centre_crop_view, padded_view, stretched_view, without_rest
from aas.lmms.base import LMM, TokenGrid


class Llava(LMM):
    """The view follows from how the processor fits the image into the tower's square input."""

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        image_processor = self.processor.image_processor
        patch = self.processor.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        grid_hw = (height // patch, width // patch)
        short = image_processor.size.get("shortest_edge")
        if getattr(image_processor, "do_pad", False):
            view = padded_view(grid_hw, image_hw)
        elif short is None:
            view = stretched_view(grid_hw, image_hw)
        else:
            view = centre_crop_view(grid_hw, image_hw, short, height)
        view = without_rest(view, (height, width), height % patch)
        return [TokenGrid(view, self.image_positions(inputs))]
