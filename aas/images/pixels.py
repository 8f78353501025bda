"""Which image files are opened, and how their pixels become RGB. `difflmm.data.pixels` is this, word for word."""

import io
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from PIL import Image, ImageOps, features

# Pixels only: of what Pillow opens, some run another program (EPS) or go on to another library's parser.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "DIB")
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
            ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx", ".tga"}  # fmt: skip
# ISO's media files, by the brands that they name: the package that reads them, and what they are called.
AVIF, HEIF = ("pillow_avif", {".avif", ".avifs"}), ("pillow_heif", {".heic", ".heif", ".hif"})
AVIF_BRANDS, HEIF_BRANDS = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
TGA_FOOTER = b"TRUEVISION-XFILE.\0"
DEEP_TOPS = (1, 255, 1023, 4095, 16383, 65535)  # white in float, and in 8 to 16 bits
ORIENTATION = 0x0112  # of EXIF
NARROW = 8  # values that use a smaller part of their range than one in so many are stretched


def known_suffixes() -> set[str]:
    """Of the files that are looked at in folders: those of the formats that can be read here."""
    avif = AVIF[1] if features.check("avif") or find_spec(AVIF[0]) else set()
    return SUFFIXES | avif | (HEIF[1] if find_spec(HEIF[0]) else set())


def opened(source: Path | io.BytesIO, name: str) -> Image.Image:
    """A picture of the formats above, told by its bytes; no pixel is decoded yet. Raises what Pillow does, and
    ImportError, with what to install, where a package is missing."""
    start, end = _ends(source)
    formats: tuple[str, ...] = FORMATS
    if start[4:8] == b"ftyp":
        brands = {start[i : i + 4] for i in range(8, min(len(start), int.from_bytes(start[:4])), 4)}
        if brands & AVIF_BRANDS and not features.check("avif"):
            _load(AVIF[0], "AVIF")
        elif brands & HEIF_BRANDS and not brands & AVIF_BRANDS:
            _load(HEIF[0], "HEIC").register_heif_opener()
            formats = ("HEIF",)
    elif end.endswith(TGA_FOOTER) or name.lower().endswith(".tga"):  # which has no mark at its beginning
        formats = (*FORMATS, "TGA")
    return Image.open(source, formats=formats)


def _ends(source: Path | io.BytesIO) -> tuple[bytes, bytes]:
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.getbuffer()) as file:
        start = file.read(512)
        file.seek(-min(len(TGA_FOOTER), file.seek(0, 2)), 2)
        return start, file.read()


def _load(package: str, kind: str) -> ModuleType:
    try:
        return import_module(package)
    except ImportError as error:
        name = package.replace("_", "-")
        raise ImportError(f"{kind} needs the package {name}: pip install {name}") from error


def deep_colour(image: Image.Image, source: Path | io.BytesIO) -> Image.Image | None:
    """A picture of more than 8 bits a colour that uses a part of their range only, in 8 bits; None of any other. Pillow
    keeps the upper 8 bits, which makes 12 in 16 dark. `image`: not decoded yet."""
    if image.mode not in ("RGB", "RGBA", "LA") or ";16" not in repr(getattr(image, "tile", ())):
        return None
    content = source.read_bytes() if isinstance(source, Path) else source.getbuffer()
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels[..., :3].max() > DEEP_TOPS[-2]:
        return None
    colours = _grey_to_uint8(pixels[..., 2::-1])
    if pixels.shape[2] == 4:
        colours = np.dstack([colours, (pixels[..., 3] // 257).astype(np.uint8)])
    found, exif = Image.fromarray(colours), Image.Exif()
    exif[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    found.info["exif"] = exif.tobytes()
    return found


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
