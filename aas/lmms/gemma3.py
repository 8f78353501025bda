"""Gemma 3: the whole image in 16 x 16 pooled tokens, and crops of long images where its processor makes them."""

import math

from torch import Tensor

from aas.geometry import pan_and_scan_views, stretched_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid, runs_of_tokens


class Gemma3(LMM):
    """The whole image, stretched to a square, and a view for each crop where the processor makes crops.

    The processor cuts no crops unless its `images_kwargs["do_pan_and_scan"]` says so, whatever the checkpoint's files
    say. The crops are named "crop 1", "crop 2", ...; finer, but none covers the image, so they are not the default.
    """

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        side = math.isqrt(self.model.config.mm_tokens_per_image)  # the model pools to a square of so many
        views = [stretched_view((side, side), image_hw)]
        options = self.processor.images_kwargs
        if options["do_pan_and_scan"]:
            views += pan_and_scan_views(
                (side, side),
                image_hw,
                options["pan_and_scan_min_crop_size"],
                options["pan_and_scan_max_num_crops"],
                options["pan_and_scan_min_ratio_to_activate"],
            )
        parts = runs_of_tokens(self.image_positions(inputs), [side * side] * len(views))
        return [TokenGrid(view, part) for view, part in zip(views, parts, strict=True)]
