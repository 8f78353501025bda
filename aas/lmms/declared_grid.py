"""Model types without a file of their own, where image processor and config together declare the grid."""

from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from aas import registry
from aas.capture import CaptureError
from aas.geometry import stretched_view, without_rest
from aas.lmms.base import LMM
from aas.lmms.fitted import fitted_view
from aas.lmms.grids import TokenGrid
from aas.lmms.processors import load_images_only
from aas.records import View

# Both have a twin in the other backend that differs in the suffix alone.
STRETCHES_TO_PATCHES = "Qwen2VLImageProcessor"
FITS_FIXED_SIZE = ("CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor", "BlipImageProcessor")


class DeclaredGrid(LMM):
    """Any decoder whose image tokens are one run of h x w, row-major, that its processor declares. One view.

    What counts as a declaration:

    - the image processor is Qwen2-VL's, which several families share: it stretches the image to whole tokens, and
      `image_grid_thw` counts patches, `merge_size` x `merge_size` of which make a token;
    - the image processor is CLIP's, SigLIP's, ViT's or BLIP's, its settings say how it fits an image into one size (see
      `fitted_view`), and the vision config gives that size and the patch: `image_size`, `patch_size`. A token for each.

    A prompt with another number of image tokens, or with something between them, is a CaptureError. What nobody
    declares is that the encoder hands on the tokens row-major: `aas doctor` shows whether it does.
    """

    assumed_settings = {}  # all are read

    @classmethod
    def load_processor(cls, source: str, revision: str) -> ProcessorMixin:
        """ValueError where nothing is declared."""
        model_type = PreTrainedConfig.get_config_dict(source, revision=revision)[0].get("model_type", "")
        if model_type not in CONFIG_MAPPING:
            raise registry.unknown_lmm(model_type, "this version of transformers does not know it either")
        config = AutoConfig.from_pretrained(source, revision=revision)
        _check_config(config)
        processor = load_images_only(source, revision)
        cls.check(config, processor)
        return processor

    @classmethod
    def check(cls, config: PreTrainedConfig, processor: ProcessorMixin) -> None:
        _check_config(config)
        if (reason := _nothing_declared(config, processor)) is not None:
            raise registry.unknown_lmm(config.model_type, reason)

    def grids(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> list[TokenGrid]:
        if "token_type_ids" in inputs:
            raise CaptureError(
                "Its tokens have types, which may say who sees whom: this model needs a file of its own."
            )
        positions = self.image_positions(inputs)
        grid = TokenGrid(self._view(inputs, image_hw), positions)
        if not torch.equal(positions, positions[0] + torch.arange(len(positions))):
            raise CaptureError("The image tokens are not one run: this model's layout is not known.")
        return [grid]

    def _view(self, inputs: dict[str, Tensor], image_hw: tuple[int, int]) -> View:
        image_processor = self.processor.image_processor
        if "image_grid_thw" in inputs:
            ((_, height, width),) = inputs["image_grid_thw"].tolist()
            merge = image_processor.merge_size
            return stretched_view((height // merge, width // merge), image_hw)
        vision = self.model.config.vision_config
        height, width = inputs["pixel_values"].shape[-2:]
        patch = vision.patch_size
        view = fitted_view(image_processor, (height // patch, width // patch), image_hw, (height, width))
        return without_rest(view, (height, width), height % patch)

    def forward_arguments(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        arguments = super().forward_arguments(inputs)
        if hasattr(self.model.base_model, "get_rope_index"):  # positions in height and width, which it finds by itself
            del arguments["position_ids"]
        return arguments


def _check_config(config: PreTrainedConfig) -> None:
    """ValueError where no model of this config can be one that `DeclaredGrid` runs, whatever its processor."""
    if (reason := _not_a_decoder_with_eyes(config)) is not None:
        raise registry.unknown_lmm(config.model_type, reason)


def _not_a_decoder_with_eyes(config: PreTrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "it has an encoder and a decoder"
    missing = [key for key in ("text_config", "vision_config", "image_token_id") if getattr(config, key, None) is None]
    if missing:
        return f"its config has no {missing[0]}"
    return None if type(config) in PROCESSOR_MAPPING else "it has no processor"


def _nothing_declared(config: PreTrainedConfig, processor: ProcessorMixin) -> str | None:
    image_processor = type(processor.image_processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if image_processor == STRETCHES_TO_PATCHES:
        return None
    if image_processor not in FITS_FIXED_SIZE:
        return f"its {image_processor} is not one whose layout is known"
    vision = config.vision_config
    sizes = getattr(vision, "image_size", None), getattr(vision, "patch_size", None)
    return None if all(isinstance(size, int) for size in sizes) else "its vision config lacks image_size or patch_size"
