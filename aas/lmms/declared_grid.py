from aas.capture import CaptureError
from aas.geometry import centre_crop_view, placed_view, stretched_view
from aas.records import View
from typing import Any

def fitted_view(
    image_processor: Any, grid_hw: tuple[int, int], image_hw: tuple[int, int], input_hw: tuple[int, int]
) -> View:
    """Where an input of `input_hw` pixels lies on the image, as CLIP's, SigLIP's and ViT's processors declare it.

    `size` gives both sides: the image was stretched to it. `size` gives the short side and `do_center_crop` is set: a
    centred square was cut out. Anything else is a CaptureError.
    """
    size, crop = image_processor.size, getattr(image_processor, "do_center_crop", None)
    stretched = not crop and input_hw == (size.get("height"), size.get("width"))
    cropped = crop and size.get("shortest_edge") and input_hw[0] == input_hw[1]
    if not image_processor.do_resize or getattr(image_processor, "do_pad", None) or not (stretched or cropped):
        raise CaptureError(
            f"How {type(image_processor).__name__} fits an image into {input_hw[0]} x {input_hw[1]} pixels is not known."
        )
    return stretched_view(grid_hw, image_hw) if stretched else centre_crop_view(grid_hw, image_hw, size["shortest_edge"], input_hw[0])
