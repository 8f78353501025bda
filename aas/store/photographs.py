"""Where the photograph is that a stored result is about."""

from glob import escape
from pathlib import Path

from aas.images import known_suffixes


def folder_of(images: Path) -> Path:
    """The folder that names of images are relative to: `images`, or that of a list file."""
    return images if images.is_dir() else images.parent


def image_file(folder: Path, key: str, file_name: str | None = None) -> Path:
    """The file of an image in `folder` by its name, or, where that has no extension, by its stem.

    The path of `folder` and name where there is none.
    """
    path = folder / (file_name or key)
    if path.is_file():
        return path
    found = [other for other in path.parent.glob(f"{escape(path.name)}.*") if other.stem == path.name]
    # A photograph may lie beside its description.
    return min(found, key=lambda other: (other.suffix.lower() not in known_suffixes(), other.name), default=path)
