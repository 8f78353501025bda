"""Idefics 3 and SmolVLM: tiles of a stretched image, each announced by its row and column, then the whole image."""

import re

from torch import Tensor
from transformers import Idefics3Processor

from aas.capture import CaptureError
from aas.geometry import stitched_tiles, stretched_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid, runs_of_tokens

ROW_COLUMN = re.compile(r"<row_(\d+)_col_(\d+)>")


class Idefics3(LMM):
    """Two views of the whole image: "tiles" (the default), and "global", the image in one tile.

    The image is stretched to multiples of the tile's side, so the tiles cover it exactly, without padding. An image
    that fits into one tile is not split: "global" is all there is.
    """

    @classmethod
    def load_processor(cls, source: str, revision: str) -> Idefics3Processor:
        """SmolVLM's own processor does to an image what Idefics 3's does; only for videos it needs more packages."""
        return Idefics3Processor.from_pretrained(source, revision=revision)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        config = self.model.config
        height, width = inputs["pixel_values"].shape[-2:]
        cell = config.vision_config.patch_size * config.scale_factor
        tile_hw = (height // cell, width // cell)
        n_rows, n_columns = tiles_hw = self._tiles_hw(inputs)
        n_cells = tile_hw[0] * tile_hw[1]
        tiles, whole = runs_of_tokens(self.image_positions(inputs), (n_rows * n_columns * n_cells, n_cells))
        grids = [TokenGrid(stretched_view(tile_hw, image_hw, "global"), whole)]
        if len(tiles):
            view = stretched_view((n_rows * tile_hw[0], n_columns * tile_hw[1]), image_hw, "tiles")
            grids.insert(0, TokenGrid(view, stitched_tiles(tiles, tiles_hw, tile_hw)))
        return grids

    def _tiles_hw(self, inputs: dict[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of tiles, as the prompt announces them; (0, 0) where the image is not split."""
        where = self.image_positions(inputs)
        prompt = self.tokenizer.decode(inputs["input_ids"][0, : where[-1] + 1])
        tiles = [(int(row), int(column)) for row, column in ROW_COLUMN.findall(prompt)]
        n_rows, n_columns = tiles[-1] if tiles else (0, 0)
        if tiles != [(row, column) for row in range(1, n_rows + 1) for column in range(1, n_columns + 1)]:
            raise CaptureError(f"The tiles {tiles} are not a whole grid, row by row: this model's layout is not known.")
        return n_rows, n_columns
