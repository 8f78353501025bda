"""Which image files are opened, and how their pixels become RGB: the rules of `aas.images.files`, word for word.

This package never imports aas; a test holds both to the same words, so that a model is trained on what it is shown
later.
"""

import numpy as np
from PIL import Image, ImageOps

# Pixels only: of what Pillow opens, some run another program (EPS) or go on to another library's parser.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
DEEP_TOPS = (1, 255, 1023, 4095, 16383, 65535)  # white in float, and in 8 to 16 bits
NARROW = 8  # values that use a smaller part of their range than one in so many are stretched


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
