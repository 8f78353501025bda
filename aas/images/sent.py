"""Photographs as they are sent to a server: within the request, so that it reads nothing else."""

from base64 import b64encode
from pathlib import Path

import cv2
from PIL import Image

from aas.images import ImageLike, as_pixels
from aas.images.pixels import ORIENTATION
from aas.photographs import is_url


def data_url(image: ImageLike) -> str:
    """A JPEG file's own bytes, where it is upright and grey or RGB; of all else the pixels that `as_pixels` gives, as
    PNG. So the server's model sees what is seen here. Raises ImageError for an image that cannot be used."""
    if isinstance(image, str | Path) and not is_url(str(image)) and _is_plain_jpeg(Path(image)):
        return _url("jpeg", Path(image).read_bytes())
    pixels = as_pixels(image)
    return _url("png", cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())


def _is_plain_jpeg(path: Path) -> bool:
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            return image.mode in ("L", "RGB") and image.getexif().get(ORIENTATION, 1) == 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # `as_pixels` says what is wrong with it
        return False


def _url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
