"""Arrays and tensors to pixels: converted where only one meaning is possible, else refused with what to do."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from aas.images.files import ImageError, check_size
from aas.images.pixels import upright_rgb

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def of_array(array: np.ndarray, channels_first: bool = False) -> np.ndarray:
    """uint8 [H, W, 3] RGB of an array that `aas.images.as_pixels` takes; returned as it is if it is that already.

    `channels_first`: how a shape is read that can mean both, as (3, 40, 3).
    """
    array = _height_width_channels(array, channels_first)
    height, width = array.shape[:2]
    check_size((width, height), "the image")
    pixels = np.ascontiguousarray(_as_uint8(array))
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return pixels
    return upright_rgb(Image.fromarray(pixels))


def of_tensor(tensor: "Tensor") -> np.ndarray:
    """The same of a torch tensor on any device."""
    tensor = tensor.detach().cpu()
    return of_array((tensor.float() if tensor.is_floating_point() else tensor).numpy(), channels_first=True)


def _height_width_channels(array: np.ndarray, channels_first: bool) -> np.ndarray:
    """[H, W] or [H, W, 3 or 4]."""
    if array.ndim == 2:
        return array
    if array.ndim == 4:
        raise ImageError(f"The array {array.shape} is a batch: give its images one by one, as image[0].")
    first, last = (array.ndim == 3 and array.shape[end] in CHANNELS for end in (0, -1))
    if not first and not last:
        raise ImageError(f"An image is [H, W, 3] (or [H, W], [H, W, 1], [H, W, 4]), not {array.shape}.")
    if first and (channels_first or not last):
        array = np.moveaxis(array, 0, -1)
    return array[..., 0] if array.shape[-1] == 1 else array


def _as_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if array.dtype.kind != "f":
        raise ImageError(f"The array is {array.dtype}: {_advice(array)}.")
    if not np.isfinite(array).all():
        raise ImageError("The array holds NaN or infinity: replace them, as by np.nan_to_num(image).")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise ImageError(
            f"The array is {array.dtype} from {low:.4g} to {high:.4g}, and 0 to 1 is expected of it: give image / 255 "
            "if 255 is white, image * std + mean if it was normalised."
        )
    return (array.astype(np.float64) * 255).round().astype(np.uint8)


def _advice(array: np.ndarray) -> str:
    if array.dtype == np.uint16:
        return "give (image // 257).astype(np.uint8) if it uses all 16 bits"
    if array.dtype.kind in "iu":
        return "give image.astype(np.uint8) if it runs from 0 to 255"
    return "give uint8 in 0 to 255 or float in 0 to 1"
