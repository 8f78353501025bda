"""LLaVA-NeXT and LLaVA-OneVision: the whole image in small, then tiles of it in large, stitched row by row."""

import math
from dataclasses import replace

from torch import Tensor
from transformers import ProcessorMixin
from transformers.image_processing_utils import select_best_resolution

from aas.capture import CaptureError
from aas.geometry import letterboxed_view, stretched_view, unpadded_view, without_newlines, without_rest
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid, runs_of_tokens
from aas.lmms.processors import load_images_only
from aas.records import View


class LlavaNext(LMM):
    """Two views: "fine" (the default), the tiles without padding and without the newline token that ends each row, and
    "base", the whole image stretched to one tile."""

    assumed_settings = {"do_resize": True}  # a crop as large as a tile takes nothing away

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        config = self.model.config
        side, patch = config.vision_config.image_size, config.vision_config.patch_size
        size = self.processor.image_processor.size
        input_hw = tuple(inputs["pixel_values"].shape[-2:])
        if side not in (size.get("shortest_edge"), size.get("height")) or input_hw != (side, side):
            raise CaptureError(
                f"The processor resizes to {size} and gives tiles of {input_hw[0]} x {input_hw[1]}, the model's tower "
                f"sees {side} pixels: no known layout."
            )
        cells, rest = side // patch, side % patch
        base = without_rest(stretched_view((cells, cells), image_hw, "base"), (side, side), rest)
        canvas_hw = select_best_resolution(image_hw, config.image_grid_pinpoints)
        rows, columns = (length // side * cells for length in canvas_hw)
        canvas = without_rest(letterboxed_view((rows, columns), image_hw, canvas_hw, "fine"), canvas_hw, rest)
        fine = self.fine_view(unpadded_view(canvas, image_hw), cells)
        height, width = fine.size_hw
        base_tokens, fine_tokens = runs_of_tokens(self.image_positions(inputs), [cells**2, height * (width + 1)])
        grids = [TokenGrid(fine, without_newlines(fine_tokens, fine.size_hw)), TokenGrid(base, base_tokens)]
        return grids if height * width else grids[1:]  # of a long and thin image the tiles may be padding alone

    def fine_view(self, unpadded: View, cells: int) -> View:
        """The fine view as the model keeps it; `cells` is a tile's side in tokens."""
        return unpadded


class LlavaOnevision(LlavaNext):
    """As LLaVA-NeXT; a fine view of more tokens than `anyres_max_N` tiles hold is shrunk, covering what it covered."""

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        return load_images_only(source, revision)

    def fine_view(self, unpadded: View, cells: int) -> View:
        rows, columns = unpadded.size_hw
        max_tiles = int(self.model.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (max_tiles * cells**2))
        if 0 in unpadded.size_hw:
            raise CaptureError(
                "The image is too long and thin for this model, whose tiles of it are padding alone: make it less long."
            )
        return replace(unpadded, size_hw=(int(rows // ratio), int(columns // ratio))) if ratio > 1.1 else unpadded
