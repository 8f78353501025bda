"""Where a model's input lies on the image, read from the settings of an image processor of CLIP's kind."""

from dataclasses import replace
from typing import Any

import numpy as np
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import ChannelDimension, get_image_size_for_max_height_width

from aas.capture import CaptureError
from aas.geometry import centre_crop_view, padded_view, stretched_view
from aas.records import View

PADS_TO_SQUARE = "LlavaImageProcessor"  # its `do_pad` comes first of all; that of others fills up a batch


def fitted_view(
    image_processor: Any, grid_hw: tuple[int, int], image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> View:
    """The view of an input of `input_hw` pixels that CLIP's image processor, LLaVA's or another of their kind made.

    They pad to a square (LLaVA's), resize and cut out the centre, each of it if their settings say so. CaptureError
    where these settings give an input of another size: then something else was done to the image.
    """
    pads = bool(getattr(image_processor, "do_pad", None)) and type(image_processor).__name__.startswith(PADS_TO_SQUARE)
    frame_hw = (max(image_hw),) * 2 if pads else image_hw
    resized_hw = _resized_hw(image_processor, frame_hw)
    crop = image_processor.crop_size if getattr(image_processor, "do_center_crop", None) else None
    seen_hw = (crop["height"], crop["width"]) if crop else resized_hw
    if seen_hw != input_hw:
        raise CaptureError(
            f"How {type(image_processor).__name__} fits an image into {input_hw[0]} x {input_hw[1]} pixels is not "
            f"known: its settings say {seen_hw[0]} x {seen_hw[1]}."
        )
    if pads and resized_hw == input_hw:
        return padded_view(grid_hw, image_hw)
    view = centre_crop_view(grid_hw, frame_hw, resized_hw, input_hw) if crop else stretched_view(grid_hw, frame_hw)
    left, top = ((frame_hw[1] - image_hw[1]) // 2, (frame_hw[0] - image_hw[0]) // 2)
    x0, y0, x1, y1 = view.box_xyxy
    return replace(view, box_xyxy=(x0 - left, y0 - top, x1 - left, y1 - top))


def _resized_hw(image_processor: Any, image_hw: tuple[int, int]) -> tuple[int, int]:
    """The size that the processor resizes an image of `image_hw` pixels to, by transformers' own arithmetic."""
    size = image_processor.size
    short, long = size.get("shortest_edge"), size.get("longest_edge")
    if not image_processor.do_resize:
        resized = image_hw
    elif short and long:
        resized = get_size_with_aspect_ratio(image_hw, short, long)
    elif short:
        image = np.broadcast_to(np.uint8(0), (3, *image_hw))  # takes no memory
        resized = get_resize_output_image_size(
            image, short, default_to_square=False, input_data_format=ChannelDimension.FIRST
        )
    elif size.get("max_height") and size.get("max_width"):
        resized = get_image_size_for_max_height_width(image_hw, size["max_height"], size["max_width"])
    else:
        resized = size.get("height"), size.get("width")
    return resized[0], resized[1]
