"""Photographs in files and behind URLs: any mode and orientation in, upright RGB out, or one clear error."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from aas.images.below import below, is_file
from aas.images.pixels import FORMATS, deep_colour, known_suffixes, opened, upright_rgb
from aas.photographs import File, ImageError, Member

MAX_MEGAPIXELS = 100


def read_image(path: File) -> np.ndarray:
    """uint8 [H, W, 3] RGB, turned upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images are converted, transparency becomes white, of an animation the first frame is
    taken. Raises ImageError for what is missing, empty, broken, cut off, no raster image, or larger than 100
    megapixels, or, from elsewhere than a folder, than 100 MB.
    """
    if isinstance(path, Member):
        return read_bytes(path.read(), str(path))
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    return _decoded(path, str(path))


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
    with _errors_of(name), opened(source, name) as image:
        image.seek(0)
        check_size(image.size, name)
        return rgb_of(deep_colour(image, source) or image, name)


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
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # what Pillow is told to allow
        raise ImageError(f"{name}: more than {MAX_MEGAPIXELS} megapixels; shrink it first ({error})") from error
    except ImportError as error:
        raise ImageError(f"{name}: {error}") from error
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


def list_images(folder: Path, outside: Iterable[Path] = ()) -> list[Path]:
    """Image files in a folder and below it, sorted; hidden ones and those inside the folders `outside` are left out."""
    return list(images_below(folder, outside).values())


def images_below(folder: Path, outside: Iterable[Path] = ()) -> dict[str, Path]:
    """As `list_images`, by their paths relative to the folder."""
    suffixes = tuple(known_suffixes())
    return {
        name: Path(entry.path)
        for name, entry in below(folder, outside)
        if name.lower().endswith(suffixes) and is_file(entry)
    }
