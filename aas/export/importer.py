"""What every format of `aas import` is: a dataclass of its options, which reads photographs with corrected masks."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from aas.export.photograph import Found, Photograph
from aas.images.files import check_size
from aas.rle import Rle, side_of
from aas.store import values
from aas.store.keys import unquoted

Read = Callable[[], Photograph]


@dataclass(frozen=True, kw_only=True)
class Importer:
    """A format. Its docstring is the command's help, `examples` what follows `aas import NAME`."""

    examples: ClassVar[tuple[str, ...]] = ()

    source: Annotated[Path, typer.Argument(metavar="FILE", help="What the tool wrote: a file, or its folder.")]
    images: Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as the file says.")] = None

    def entries(self, notes: list[str]) -> Iterator[tuple[str, Read]]:
        """A name for messages of each photograph, and what reads it; that raises ValueError where it is damaged.
        `notes`: what people should know is added, in lines. Raises ValueError or OSError for what is no such file."""
        raise NotImplementedError

    def image_file(self, folder: Path, name: str, *below: str) -> Path:
        """A photograph of that name: in --images, else in `folder` or its folders `below`; where it would be, if it is
        in none."""
        folders = [self.images] if self.images else [folder, *(folder / one for one in below)]
        found = [path for path in (one / name for one in folders) if path.is_file()]
        return found[0] if found else folders[0] / name


def photograph_of(
    about: Mapping[str, Any], name: str, source: Path, size_hw: tuple[int, int], found: tuple[Found, ...]
) -> Photograph:
    """A photograph whose name, caption and question `about` may say; `name`: of its file."""
    words = (text_of(about, "caption"), text_of(about, "question"))
    return Photograph(0, key_of(about, name), source, size_hw, *words, found)


def key_of(about: Mapping[str, Any], file_name: str) -> str:
    """What the run calls a photograph: as the file says; else as its image is called. ValueError where it is not."""
    name = about.get("name")
    key = name if isinstance(name, str) and name else unquoted(Path(file_name).stem)
    if not key:
        raise ValueError("it does not say what its photograph is called")
    return key


def size_of(height: Any, width: Any, who: str) -> tuple[int, int]:
    """Height and width of a photograph, as `who` says them; ValueError where it does not, and for too many pixels."""
    rows, columns = side_of(height), side_of(width)
    if not rows or not columns:
        raise ValueError(f"{who} does not say its image's height and width")
    check_size((columns, rows), "its image")
    return rows, columns


def text_of(about: Mapping[str, Any], key: str) -> str:
    """A text, or none."""
    return values.named(key, about.get(key) or "", values.text)


def found_of(about: Mapping[str, Any], phrase: Any, label: Any, mask: Rle) -> Found:
    """One thing; a phrase that is lost is replaced by the class. `about`: may have `mask_score`, or a `score` that is
    the mask's, `point` and `span`."""
    named = values.named("class", label, values.text)
    about = {**about, "score": about.get("mask_score", about.get("score"))}
    score, point, span = (
        None if about.get(key) is None else values.named(key, about[key], check)
        for key, check in (("score", values.number), ("point", values.point_xy), ("span", values.span))
    )
    return Found(phrase if isinstance(phrase, str) and phrase else named, named, mask, score, point, span)
