"""DeepSeek-VL, and Janus, which looks at images in the same way: one image, one grid, row-major."""

from typing import Any

from torch import Tensor
from transformers import GenerationMixin

from aas.geometry import long_side_padded_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid


class DeepseekVL(LMM):
    """One view: the whole image, padded to a square. The hybrid model has two vision encoders but one grid."""

    assumed_settings = {**LMM.assumed_settings, "do_pad": True}

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        image_processor = self.processor.image_processor
        patch = self.model.config.vision_config.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        # The hybrid's processor shrinks the input of the second vision encoder, already padded, for the first.
        padded = getattr(image_processor, "high_res_size", None) or image_processor.size
        view = long_side_padded_view(
            (height // patch, width // patch), image_hw, padded["height"], image_processor.min_size
        )
        return [TokenGrid(view, self.image_positions(inputs))]


class Janus(DeepseekVL):
    """Janus as a reader of images; it also draws, which nobody asks of it here."""

    def generate(self, inputs: dict[str, Tensor], **options: Any) -> Tensor:
        """Janus' own `generate` loses the logits processors, and with them the sampling, when it writes text."""
        return GenerationMixin.generate(self.model, **inputs, **options)
