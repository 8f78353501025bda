"""InternVL: tiles of the stretched image, each row-major, then a thumbnail of the whole."""

from torch import Tensor
from transformers import ProcessorMixin
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from aas.geometry import stitched_tiles, stretched_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid, runs_of_tokens
from aas.lmms.processors import load_images_only


class InternVL(LMM):
    """Two views of the whole image: "tiles" (the default), and "thumbnail", which is there beside two tiles or more."""

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        return load_images_only(source, revision)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        config, tiling = self.model.config, self.processor.image_processor
        tile_hw = tuple(inputs["pixel_values"].shape[-2:])
        columns, rows = get_optimal_tiled_canvas(image_hw, tile_hw, tiling.min_patches, tiling.max_patches)
        patch_h, patch_w = config.vision_config.patch_size
        height = int(tile_hw[0] // patch_h * config.downsample_ratio)
        width = int(tile_hw[1] // patch_w * config.downsample_ratio)
        n_tiled, n_thumbnail = rows * columns * height * width, height * width
        lengths = [n_tiled, n_thumbnail] if rows * columns > 1 else [n_tiled]
        tiled, *thumbnail = runs_of_tokens(self.image_positions(inputs), lengths)
        tiles_view = stretched_view((rows * height, columns * width), image_hw, "tiles")
        return [
            TokenGrid(tiles_view, stitched_tiles(tiled, (rows, columns), (height, width))),
            *(TokenGrid(stretched_view((height, width), image_hw, "thumbnail"), tokens) for tokens in thumbnail),
        ]
