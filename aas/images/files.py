"""Photographs in files and behind URLs: any mode and orientation in, upright RGB out, or one clear error."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_MEGAPIXELS = 100
MAX_MEGABYTES, TIMEOUT_SECONDS = 100, 30  # of a download
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
            ".jpe", ".mpo", ".jp2", ".j2k"}  # fmt: skip
# Pixels only: of what Pillow opens, some run another program (EPS) or go on to another library's parser.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")


DEEP_TOPS = (1, 255, 1023, 4095, 16383, 65535)  # white in float, and in 8 to 16 bits
NARROW = 8  # values that use a smaller part of their range than one in so many are stretched


class ImageError(ValueError):
    """The image cannot be used; the message names it and says what to do."""


def read_image(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB, turned upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images are converted, transparency becomes white, of an animation the first frame is
    taken. Raises ImageError for what is missing, empty, broken, cut off, no raster image, or larger than 100
    megapixels.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    return _decoded(path, str(path))


def read_url(url: str) -> np.ndarray:
    """The image behind an http(s) URL, as `read_image`; at most 100 MB, within 30 seconds of silence."""
    try:
        ascii_url = quote(url, safe="%/:=&?~#+!$,;'@()*[]")  # as browsers do with what people type
        request = Request(ascii_url, headers={"User-Agent": "aas"})  # some servers refuse urllib's own
        with urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            content = answer.read(MAX_MEGABYTES * 1_000_000 + 1)
    except (OSError, HTTPException, ValueError) as error:
        raise ImageError(f"{url}: cannot be downloaded ({error})") from error
    if len(content) > MAX_MEGABYTES * 1_000_000:
        raise ImageError(f"{url}: larger than {MAX_MEGABYTES} MB; download and shrink it first")
    return read_bytes(content, url)


def read_bytes(content: bytes, name: str = "the image's bytes") -> np.ndarray:
    """The image that the bytes of a file hold; `name` is for the errors."""
    return _decoded(io.BytesIO(content), name)


def read_file(file: BinaryIO) -> np.ndarray:
    """The image in an open file, from where it stands on."""
    name = str(getattr(file, "name", "the open file"))
    content = file.read()
    if not isinstance(content, bytes):
        raise ImageError(f'{name}: opened as text; open it with mode "rb"')
    return read_bytes(content, name)


def _decoded(source: Path | io.BytesIO, name: str) -> np.ndarray:
    """The first frame of an encoded image; `name` is for the errors."""
    if not (source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes):
        raise ImageError(f"{name}: the file is empty (0 bytes)")
    # The limit is checked by rgb_of, with our own message, before any pixel is decoded.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with _errors_of(name), Image.open(source, formats=FORMATS) as image:
            image.seek(0)
            return rgb_of(image, name)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def rgb_of(image: Image.Image, name: str = "the image") -> np.ndarray:
    """The frame of now of a PIL image: uint8 [H, W, 3] RGB, upright; `name` is for the errors."""
    check_size(image.size, name)
    with _errors_of(name):
        image.load()
    return upright_rgb(image)


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Pillow's errors as an ImageError that names the image."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image of a known format ({', '.join(FORMATS)})") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name}: broken or cut off ({error})") from error


def check_size(size_wh: tuple[int, int], name: str) -> None:
    """ImageError for no pixel, and for too many."""
    width, height = size_wh
    if width * height == 0:
        raise ImageError(f"{name}: it has no pixel ({width} x {height})")
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(
            f"{name}: {width} x {height} pixels are more than {MAX_MEGAPIXELS} megapixels; shrink it first"
        )


def upright_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of a PIL image as uint8 [H, W, 3] RGB, EXIF orientation applied."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return np.repeat(_grey_to_uint8(np.asarray(image))[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.array(image.convert("RGB"))


def _grey_to_uint8(grey: np.ndarray) -> np.ndarray:
    """Deep grey, which Pillow would clip, by the range that its values use, not the one of their container.

    White is 1, or all of 8, 10, 12, 14 or 16 bits: the first that no value exceeds. Where there is no such range, or
    the values use less than an eighth of it (temperatures), the smallest becomes black and the largest white. Of
    what is no number, infinity is white and the rest black.
    """
    numbers = grey[np.isfinite(grey)].astype(np.float64)
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 1.0)
    tops = DEEP_TOPS if grey.dtype.kind in "iu" or (numbers == np.floor(numbers)).all() else (1, 255)
    white = float(next((top for top in tops if low >= 0 and high <= top), 0))
    black = 0.0
    if (low < high and high - low < white / NARROW) or not white:
        black, white = low, high
    values = np.nan_to_num(grey.astype(np.float64), nan=black, posinf=white, neginf=black)
    return np.floor((values - black) * 255 / max(white - black, 1e-12)).clip(0, 255).astype(np.uint8)


def list_images(folder: Path, outside: Iterable[Path] = ()) -> list[Path]:
    """Image files in a folder and below it, sorted; hidden ones and those inside the folders `outside` are left out."""
    skipped = [path.resolve() for path in outside]
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not any(path.resolve().is_relative_to(skip) for skip in skipped)
    )
