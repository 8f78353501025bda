"""Images of every kind: a path, URL, bytes, file, PIL image, array or tensor in, upright RGB out."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast
from urllib.parse import unquote, urlsplit

import numpy as np
from PIL import Image

from aas.images.arrays import of_array, of_tensor
from aas.images.files import (
    ImageError,
    images_below,
    list_images,
    read_bytes,
    read_file,
    read_image,
    rgb_of,
)
from aas.images.pixels import SUFFIXES, known_suffixes, upright_rgb
from aas.photographs import Member, file_of, is_url, is_web, member_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SUFFIXES", "ImageError", "ImageLike", "as_pixels", "images_below", "known_suffixes", "list_images",
           "name_of", "read_image", "upright_rgb"]  # fmt: skip

ImageLike: TypeAlias = "str | Path | Member | bytes | BinaryIO | Image.Image | np.ndarray | Tensor"


def as_pixels(image: ImageLike) -> np.ndarray:
    """Any image as uint8 [H, W, 3] RGB, upright.

    - A path, a URL (http, s3, … or of one in a shard), the bytes of a file, or a file opened for reading: decoded as
      `read_image` does.
    - A PIL image: its frame of now, turned by its EXIF orientation.
    - An array uint8 [H, W, 3] is returned as it is. Grey ([H, W], [H, W, 1]) and bool become RGB, RGBA ([H, W, 4]) is
      put on white, float in 0 to 1 is scaled to 255 and rounded; [C, H, W] is turned where the shape can mean nothing
      else.
    - A torch tensor likewise; a shape that can mean both is [C, H, W].

    Raises ImageError for what cannot be used; it says what to do, of an array the conversion to do first.
    """
    if isinstance(image, str | Path | Member):
        return read_image(file_of(image) if isinstance(image, str) else image)
    if isinstance(image, bytes | bytearray | memoryview):
        return read_bytes(bytes(image))
    if isinstance(image, Image.Image):
        return rgb_of(image)
    if isinstance(image, np.ndarray):
        return of_array(image)
    if hasattr(image, "read"):
        return read_file(cast("BinaryIO", image))
    if hasattr(image, "detach"):  # a tensor: torch is not imported for this
        return of_tensor(cast("Tensor", image))
    raise ImageError(
        "An image is a path, a URL, bytes, an open file, a PIL image, a numpy array or a torch tensor, "
        f"not {type(image).__name__}."
    )


def name_of(image: ImageLike) -> str:
    """The name of a path's or URL's file, without its suffix; `image` for all else."""
    image = str(image) if isinstance(image, Member) else image
    if isinstance(image, str) and is_url(image):
        path = unquote(urlsplit(image).path) if is_web(image) else member_of(image).name
        return PurePosixPath(path).stem or "image"
    return (Path(image).stem or "image") if isinstance(image, str | Path) else "image"
