"""Where the photograph is that a stored result is about."""

from glob import escape
from pathlib import Path

from aas.images import known_suffixes
from aas.photographs import Address, File, Photographs, file_of, is_elsewhere, is_url

Folder = Path | Photographs


def folder_of(images: Path | Address) -> Folder:
    """What names of images are relative to: the folder `images`, or that of a list file; what lies at a URL, or in
    shards."""
    if is_elsewhere(images):
        return Photographs(images, known_suffixes())
    assert isinstance(images, Path)
    return images if images.is_dir() else images.parent


def in_folder(folder: Folder, name: str) -> File:
    """The photograph of that name, whether it is there or not; of a URL what is behind it."""
    return file_of(name) if is_url(name) else folder / name


def image_file(folder: Folder, key: str, file_name: str | None = None) -> File:
    """The file of an image in `folder` by its name, or, where that has no extension, by its stem.

    The path of `folder` and name where there is none.
    """
    path = in_folder(folder, file_name or key)
    if not isinstance(path, Path) or path.is_file():
        return path
    found = [other for other in path.parent.glob(f"{escape(path.name)}.*") if other.stem == path.name]
    # A photograph may lie beside its description.
    return min(found, key=lambda other: (other.suffix.lower() not in known_suffixes(), other.name), default=path)


def moved_file(folder: Folder, name: str, told: str | None, file_name: str | None = None) -> File:
    """The photograph of a result of this `name` in another folder than where the result says it is (`told`)."""
    found = image_file(folder, name, file_name)
    return folder / Path(told).name if told is not None and not found.is_file() else found
