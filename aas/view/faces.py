"""Which font writes which characters: Noto Sans of this package for 40 scripts, then what the system has.

The package's fonts make the same picture on every machine; `scripts/make_fonts.py` says where they come from.
"""

import functools
import importlib.resources
import shutil
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fontTools.ttLib import TTFont, TTLibError
from PIL import ImageFont

FIRST = "NotoSans-Regular.ttf"
# Fonts with many characters that come with Windows, macOS or a Linux desktop; Pillow knows where such names lie.
KNOWN_NAMES = (
    "seguisym.ttf",
    "seguiemj.ttf",
    "Nirmala.ttf",
    "Arial Unicode.ttf",
    "Apple Symbols.ttf",
    "DejaVuSans.ttf",
)


@dataclass(frozen=True)
class Source:
    """A font file and, in a collection, the font's number."""

    path: str
    number: int = 0


@functools.lru_cache(maxsize=256)
def loaded(source: Source, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(source.path, size_px, index=source.number)


@functools.lru_cache(maxsize=1)
def own_sources() -> tuple[Source, ...]:
    """The package's fonts; the one for Latin, Greek and Cyrillic letters first, the large one of Chinese last."""
    folder = Path(str(importlib.resources.files("aas.view").joinpath("fonts")))
    files = sorted(folder.glob("*.?tf"), key=lambda path: (path.name != FIRST, path.suffix == ".otf", path.name))
    return tuple(Source(str(path)) for path in files)


@functools.lru_cache(maxsize=64)
def coverage(source: Source) -> frozenset[int]:
    """The code points that a font can write."""
    with TTFont(source.path, fontNumber=source.number, lazy=True) as font:
        return frozenset(font.getBestCmap() or ())


@functools.lru_cache(maxsize=8192)
def source_of(cluster: str) -> Source:
    """The first font that has a character with its marks, or else without; the first of all, with its box, if none."""
    whole = {ord(c) for c in cluster if not is_joiner(c)}
    for needed in (whole, {ord(cluster[0])}):
        for source in _candidates(cluster):
            if needed <= coverage(source):
                return source
    return own_sources()[0]


def _candidates(cluster: str) -> Iterator[Source]:
    yield from own_sources()
    for source in system_sources(ord(cluster[0])):
        try:
            loaded(source, 16)  # fonts of coloured bitmaps cannot be scaled
            coverage(source)
        except (OSError, TTLibError):
            continue
        yield source


def system_sources(code_point: int) -> list[Source]:
    """Fonts of the system that may write the character: fontconfig's choice, else those of a known name."""
    if shutil.which("fc-match"):
        command = ["fc-match", "--format=%{file}\t%{index}", f"sans:scalable=true:charset={code_point:x}"]
        try:
            said = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
            path, _, number = said.partition("\t")
            return [Source(path, int(number) & 0xFFFF)]  # above: the instance of a variable font
        except (subprocess.SubprocessError, OSError, ValueError):
            return []
    return list(_known_sources())


@functools.lru_cache(maxsize=1)
def _known_sources() -> tuple[Source, ...]:
    found = []
    for name in KNOWN_NAMES:
        try:
            found.append(Source(str(ImageFont.truetype(name, 16).path)))
        except OSError:
            continue
    return tuple(found)


def is_joiner(character: str) -> bool:
    """Characters that only say how their neighbours are shaped: no font has to have them."""
    return unicodedata.category(character) == "Cf"
