"""Reading photographs: any mode and orientation in, upright RGB out, or one clear error."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_MEGAPIXELS = 100
SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageError(ValueError):
    """The image cannot be used; the message names it and says what to do."""


def read_image(path: Path) -> np.ndarray:
    """uint8 [H, W, 3] RGB, turned upright by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images are converted, transparency becomes white, of an animation the first frame is
    taken. Raises ImageError for what is missing, empty, broken, cut off, or larger than 100 megapixels.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes)")
    # The limit is checked here, with our own message, before any pixel is decoded.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_MEGAPIXELS * 1_000_000:
                raise ImageError(
                    f"{path}: {width} x {height} pixels are more than {MAX_MEGAPIXELS} megapixels; shrink it first"
                )
            image.seek(0)
            image.load()
            return upright_rgb(image)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: not an image that Pillow can read") from error
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: broken or cut off ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


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
    """Pillow clips deep grey images when it converts them; here 16 bits are scaled, other ranges stretched."""
    if grey.dtype == np.uint16 or (grey.dtype.kind in "iu" and 255 < grey.max() <= 65535 and grey.min() >= 0):
        return (grey // 257).astype(np.uint8)
    grey = np.nan_to_num(grey.astype(np.float64))
    if grey.min() >= 0 and grey.max() <= 255:
        return grey.astype(np.uint8)
    return ((grey - grey.min()) * (255 / max(np.ptp(grey), 1e-12))).astype(np.uint8)


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
