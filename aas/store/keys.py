"""The name under which an image's results are stored."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath
from urllib.parse import unquote

# Here, where they cost nothing: what reads the files imports numpy and more.
ATTENTION_SUFFIX = ".safetensors"
RESULT_SUFFIX = ".json"

UNSAFE = {ord(c): f"%{ord(c):02X}" for c in '%/\\:*?"<>|' + "".join(map(chr, range(32)))}


def quoted(name: str) -> str:
    """`name` as a file name: separators, control and reserved characters percent-encoded, the rest kept."""
    return name.translate(UNSAFE)


def unquoted(name: str) -> str:
    """The name that `quoted` made a file name of."""
    return unquote(name)


def result_names(images: Sequence[tuple[Path, Path]]) -> list[str]:
    """One name for each (path, folder it was found in), unique in the list.

    The path below its folder without extension; where two images would share it, with extension (`photo.jpg`,
    `photo.png`); where even that is shared, by files of the same name in several places, with a number behind.
    """
    relative = [PurePath(path.relative_to(folder).as_posix()) for path, folder in images]
    short = [quoted(path.with_suffix("").as_posix()) for path in relative]
    counts = Counter(name.casefold() for name in short)
    names, taken = [], set[str]()
    for path, name in zip(relative, short, strict=True):
        candidate = name if counts[name.casefold()] == 1 else quoted(path.as_posix())
        unique, n = candidate, 2
        while unique.casefold() in taken:
            unique, n = f"{candidate}-{n}", n + 1
        taken.add(unique.casefold())
        names.append(unique)
    return names
