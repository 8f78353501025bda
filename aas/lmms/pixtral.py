"""Models with Pixtral's encoder: Pixtral itself (in LLaVA's format) and Mistral 3. One grid, as the image is shaped."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

from aas.capture import CaptureError
from aas.geometry import stretched_view
from aas.lmms.base import LMM
from aas.lmms.grids import TokenGrid


class PilPixtralProcessor(ProcessorMixin):
    """Pixtral's processor for one image, without the packages that transformers' own asks for.

    Loading treats the tokenizer of every class with "PixtralProcessor" in its name as those checkpoints need it.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
    ):
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token, self.image_break_token = image_token, image_break_token
        self.image_end_token = image_end_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)

    @property
    def token_side(self) -> int:
        """Pixels of the resized image that a token stands for, on each side."""
        return self.patch_size * self.spatial_merge_size

    def _process_images(self, images: Any, **options: Any) -> tuple[Any, list[str]]:
        return super()._process_images(images, **options, patch_size=self.token_side)

    def replace_image_token(self, image_inputs: dict, image_idx: int, **_: Any) -> str:
        """Rows of image tokens, a break between two, an end behind the last."""
        height, width = (int(side) // self.token_side for side in image_inputs["image_sizes"][image_idx])
        return self.image_break_token.join([self.image_token * width] * height) + self.image_end_token


class Pixtral(LMM):
    """The image keeps its shape, stretched by less than a token to whole tokens, and is never padded."""

    @classmethod
    def load_processor(cls, source: str, revision: str) -> PilPixtralProcessor:
        return PilPixtralProcessor.from_pretrained(source, revision=revision)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        height, width = inputs["image_sizes"][0].tolist()
        side = self.model.config.vision_config.patch_size * getattr(self.model.config, "spatial_merge_size", 1)
        if height // side * (width // side) == 1 and self.model.config.model_type == "mistral3":
            raise CaptureError(
                f"An image of {image_hw[1]} x {image_hw[0]} pixels is one token, which this model cannot take: enlarge "
                f"it to more than {side} pixels on a side."
            )
        return [TokenGrid(stretched_view((height // side, width // side), image_hw), self.image_positions(inputs))]
