"""Images: read, and looked at before anything is loaded."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from accelerate.utils import gather_object
from PIL import Image
from tqdm import tqdm

from difflmm.data.pixels import deep_colour, opened, upright_rgb
from difflmm.data.rows import Row, Skipped

TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageError(ValueError):
    """The image cannot be used; the message names it."""


def read_image(path: Path) -> Image.Image:
    """Upright, RGB, white behind what is transparent. Raises ImageError for what is missing, broken or cut off."""
    _must_be_file(path)
    return _read(path, path)


def _must_be_file(path: Path) -> None:
    """To read from a named pipe would wait for ever."""
    if not path.is_file():
        raise ImageError(f"{path}: no such file")


def _read(path: Path, source: Path | BytesIO) -> Image.Image:
    """`source`: the file, or where its bytes are."""
    try:
        with opened(source, path.name) as image:
            image.seek(0)
            return Image.fromarray(upright_rgb(deep_colour(image, source) or image))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except ImportError as error:
        raise ImageError(f"{path}: {error}") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise ImageError(f"{path}: not an image, broken or cut off ({error})") from error


def check_images(
    rows: Sequence[Row], n_threads: int, process: int = 0, n_processes: int = 1
) -> tuple[list[Row], list[Skipped], dict[Path, str]]:
    """Rows whose image can be read, the others, and the SHA-256 of each image. Every image is decoded once;
    where there are several processes, each of them looks at its share."""
    paths = list(dict.fromkeys(row.image for row in rows if row.image))
    with ThreadPoolExecutor(n_threads) as pool:
        share = paths[process::n_processes]
        looked_at = pool.map(_digest_or_error, share)
        told = tqdm(looked_at, "Looking at images", len(share), leave=False, disable=process > 0)
        found = list(zip(share, told, strict=True))
    results = dict(gather_object(found) if n_processes > 1 else found)
    errors = {path: error for path, (_, error) in results.items() if error}
    good = [row for row in rows if row.image not in errors]
    bad = [Skipped(row.index, row.id, errors[row.image]) for row in rows if row.image in errors]
    return good, bad, {path: digest for path, (digest, _) in results.items()}


def _digest_or_error(path: Path) -> tuple[str, str]:
    try:
        _must_be_file(path)
        content = path.read_bytes()
        _read(path, BytesIO(content))
    except OSError as error:
        return "", f"{path}: {(error.strerror or str(error)).lower()}"
    except ImageError as error:
        return "", str(error)
    except ValueError:  # a zero byte, half a character
        return "", f"{str(path)!a}: not a file's name"
    return hashlib.sha256(content).hexdigest(), ""


def noise_seed(digest: str, seed: int) -> int:
    """Of an image's noise: its own, whatever the image's name, the row or the process. 63 bits."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{digest}".encode()).digest()[:8]) >> 1
