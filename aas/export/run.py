"""`aas export FORMAT RUN`: a run's results, mapped to one's own classes where that is asked for, into a format."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.objects import each_once
from aas.export.photograph import Photograph
from aas.export.results import Results
from aas.store.addresses import folder_at
from aas.store.atomic import check_writable
from aas.text import harmless

if TYPE_CHECKING:
    from aas.export.classes import OwnClasses

UNMAPPED = "unmapped.tsv"
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every `aas export FORMAT`."""

    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Run folder or URL of `aas ground`, `serve`, `segment` or `import`.",
            show_default=False,
            parser=folder_at,
        ),
    ]
    images: Annotated[Path | None, typer.Option(help="Folder of the photographs. Default: as the run says.")] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Your classes, a line each: `name` or `name: synonym, synonym`. All else is left out."),
    ] = None
    class_thresh: Annotated[
        float, typer.Option(help="Least cosine between a phrase's noun and a class; above 1: synonyms only.")
    ] = 0.8
    min_confidence: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out phrases that the picture supports less.")
    ] = None
    phrases: Annotated[str, typer.Option(help="spaCy pipeline for --classes, with word vectors.")] = "embedded"


def export(options: RunOptions, exporter: Exporter) -> int:
    """Write the format's folder; returns the exit code. Raises ValueError or OSError where the options cannot work."""
    check_new(exporter.out)
    results = Results(options.folder, options.images, options.min_confidence)
    own = _own_classes(options)
    photographs = results if own is None else _mapped(results, own)
    said = exporter.write(photographs, ClassNames(own.names if own else ()))
    if own is not None:
        said += own.report(exporter.out / UNMAPPED)
    if results.n_unsupported:
        said.append(f"{results.n_unsupported} phrases are below --min-confidence and were left out")
    if results.n_empty:
        said.append(f"{results.n_empty} phrases have an empty mask and were left out")
    print(exporter.out)
    for line in said + _few([f"failed: {failure}" for failure in results.failures]):
        print(f"aas: {harmless(line)}", file=sys.stderr)
    return 3 if results.failures else 0


def _own_classes(options: RunOptions) -> "OwnClasses | None":
    if options.classes is None:
        return None
    from aas.export.classes import OwnClasses  # spaCy, which takes seconds

    return OwnClasses(options.classes, options.phrases, options.class_thresh)


def check_new(out: Path) -> None:
    """ValueError or OSError where `out` cannot be a new folder: what is there could be taken for a part of it."""
    check_writable(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there and not an empty folder: name a new one.")


def _mapped(photographs: Iterable[Photograph], own: "OwnClasses") -> Iterator[Photograph]:
    """With the classes that phrases name; of phrases that name one thing twice, once."""
    for photograph in photographs:
        named = [(one, own.of(one.phrase)) for one in photograph.found]
        yield replace(photograph, found=each_once([replace(one, label=label) for one, label in named if label]))


def _few(lines: list[str]) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return lines[:SHOWN] + more
