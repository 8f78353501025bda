"""Which images a run is about: a folder, a list file, or those of an annotation file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas.images import images_below
from aas.images.skipped import say_what_is_skipped
from aas.photographs import Address, File, Photographs, file_of, is_shard, is_url
from aas.spellings import id_text
from aas.store.photographs import folder_of
from aas.text import of_json, read_lines, read_text


@dataclass(frozen=True)
class ImageSource:
    """`key`: the path relative to the folder of images, the name of everything that is stored about it."""

    key: str
    path: File

    @property
    def names(self) -> tuple[str, ...]:
        """All by which --answers may call it."""
        path = self.path
        return (self.key, *((path.as_posix(), str(path.resolve())) if isinstance(path, Path) else (str(path),)))


def find_sources(
    images: Path | Address, ref_anno: Path | None = None, *, outside: Path | None = None
) -> list[ImageSource]:
    """Sorted by key. `images` is a folder (searched below too), a text file with one path or URL per line, the URL of a
    folder, or shards (`aas.photographs`).

    With `ref_anno`, a COCO or GranD-f annotation, exactly its images are taken from the folder, whether they are there
    or not: what is missing fails when it is read. Images inside `outside` do not count. Raises ValueError or OSError
    where that cannot work.
    """
    folder = folder_of(images)
    if isinstance(folder, Photographs):
        names = folder.members if ref_anno is None else annotated_names(ref_anno)
        sources = [ImageSource(name, folder / name) for name in dict.fromkeys(names)]
    else:
        sources = _on_this_machine(Path(images), ref_anno, [outside] if outside else [])
    if not sources:
        raise ValueError(f"{ref_anno or images}: no images found{_shards_in(Path(images))}.")
    return sorted(sources, key=lambda source: source.key)


def _on_this_machine(images: Path, ref_anno: Path | None, outside: list[Path]) -> list[ImageSource]:
    if ref_anno is not None:
        if not images.is_dir():
            raise ValueError(f"--images {images} is not a folder: with --ref-anno it holds the annotation's images.")
        return [ImageSource(name, images / name) for name in dict.fromkeys(annotated_names(ref_anno))]
    if images.is_dir():
        found = images_below(images, outside=outside)
        say_what_is_skipped(images, outside)
        return [ImageSource(name, path) for name, path in found.items()]
    if images.is_file():
        return list(dict.fromkeys(_listed(images)))
    raise FileNotFoundError(f"--images {images}: no such folder or list file.")


def _shards_in(images: Path) -> str:
    """What to do where a folder holds shards."""
    suffixes = sorted({path.suffix for path in images.iterdir() if is_shard(path)}) if images.is_dir() else []
    return f"; for its shards give --images '{images}/*{suffixes[0]}'" if suffixes else ""


def _listed(list_file: Path) -> list[ImageSource]:
    """Relative paths are relative to the list file's folder; what lies elsewhere, as a URL, is named as it is
    listed."""
    try:
        lines = read_lines(list_file)
    except ValueError as error:
        raise ValueError(f"--images {list_file} is neither a folder nor a text file with one path per line.") from error
    folder = list_file.parent
    sources = []
    for line in (line.strip() for line in lines):
        if is_url(line):
            sources.append(ImageSource(line, file_of(line)))
        elif line and not line.startswith("#"):
            path = folder / line
            inside = path.is_relative_to(folder) and ".." not in path.parts
            key = path.relative_to(folder) if inside else Path(line)
            sources.append(ImageSource(key.as_posix(), path))
    return sources


def annotated_names(ref_anno: Path) -> list[str]:
    """File names of the images of a COCO or GranD-f annotation; GranD-f's may have an id only (`ID.jpg`)."""
    content = read_json(ref_anno)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
        raise ValueError(f"{ref_anno} is no COCO or GranD-f annotation: it has no list `images`.")
    return [name_of(image, ref_anno) for image in images]


def name_of(image: dict[str, Any], ref_anno: Path) -> str:
    """File name of an annotation's image; ValueError where it has neither a name nor an id."""
    name, key = image.get("file_name"), id_text(image.get("id"))
    if key is None:
        raise ValueError(f"{ref_anno}: an image has no id, or {image.get('id')!r}, which is none.")
    return str(name or f"{key}.jpg")


def file_names(ref_anno: str | None) -> dict[str | None, str]:
    """Of the images of a run's annotation, by `id_text`; none where it has none, or is gone."""
    if ref_anno is None or not Path(ref_anno).is_file():
        return {}
    content = read_json(Path(ref_anno))
    images = content.get("images", []) if isinstance(content, dict) else []
    return {id_text(image["id"]): image["file_name"] for image in images if "file_name" in image and "id" in image}


def read_json(path: Path) -> object:
    """What the file holds; ValueError or FileNotFoundError, in one line, where that cannot be read."""
    try:
        return of_json(read_text(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
