"""What lies in a folder of images and is not looked at: it is said, since nobody would miss it in the results."""

import logging
from collections.abc import Iterable
from pathlib import Path

from aas.images.below import Entry, below, is_file
from aas.images.pixels import HEIF, known_suffixes

FEW = 5  # are named

log = logging.getLogger(__name__)


def not_looked_at(folder: Path, outside: Iterable[Path] = ()) -> list[Path]:
    """Files of other kinds than images, linked folders and broken links, in a folder and below it, sorted; hidden ones
    and those inside the folders `outside` are left out."""
    suffixes = tuple(known_suffixes())
    return [Path(entry.path) for name, entry in below(folder, outside) if _is_passed_over(name, entry, suffixes)]


def _is_passed_over(name: str, entry: Entry, suffixes: tuple[str, ...]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return False
    return not name.lower().endswith(suffixes) or not is_file(entry)  # a named pipe, a device, a broken link


def say_what_is_skipped(folder: Path, outside: Iterable[Path] = ()) -> None:
    """One line with their number, and the first names."""
    if found := not_looked_at(folder, outside):
        named = ", ".join(path.relative_to(folder).as_posix() + "/" * path.is_dir() for path in found[:FEW])
        more = ", …" if len(found) > FEW else ""
        heic = any(path.suffix.lower() in HEIF[1] for path in found)
        log.warning(
            "%s: %d not looked at (no image of a known kind, a linked folder or a broken link): %s%s%s",
            folder, len(found), named.encode(errors="backslashreplace").decode(), more,
            "; for HEIC: pip install pillow-heif" if heic else "",
        )  # fmt: skip
