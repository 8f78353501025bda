"""`aas import FORMAT FILE`: masks that people corrected in another tool, as a run folder like that of `aas ground`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aas import rle
from aas.export.importer import Importer
from aas.export.photograph import Found, Photograph, span_in
from aas.export.results import Results
from aas.export.run import check_new
from aas.geometry import deepest_xy
from aas.records import Phrase
from aas.spellings import id_of
from aas.store.results import Result, check_one_size, result_of, write_result
from aas.store.runs import RunFolder
from aas.text import harmless

COMMAND = "import"
BY_HAND = 1.0  # the score of a mask that has none
# What reading raises where another tool's file holds something else than its format says, at any depth.
OF_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OSError)


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Options of every `aas import FORMAT`."""

    out: Annotated[Path, typer.Option(help="New run folder.")]
    run: Annotated[
        Path | None, typer.Option(help="The run that was exported: gives captions and questions that the tool lost.")
    ] = None


def import_corrected(options: ImportOptions, importer: Importer) -> int:
    """Write a result for each photograph; returns the exit code. What cannot be read is in failed.jsonl."""
    check_new(options.out)
    notes: list[str] = []
    entries = list(importer.entries(notes))
    if not entries:
        raise ValueError(f"{importer.source} holds no photographs.")
    known = {} if options.run is None else {one.key: one for one in Results(options.run)}
    run = RunFolder(options.out, ".json")
    arguments = {"format": type(importer).__name__, "source": str(importer.source)}
    run.begin(COMMAND, arguments, {"n_images": len(entries)})
    for name, read in entries:
        try:
            photograph = read()
            result = result_from(photograph, known.get(photograph.key), options.out)
            if run.is_done(photograph.key):
                raise ValueError(f"another photograph is called {photograph.key!r} too")
            write_result(run.item_path(photograph.key), result)
        except OF_DAMAGE as error:
            run.fail(name, f"{name}: {error}")
    print(options.out)
    for line in notes:
        print(f"aas: {harmless(line)}", file=sys.stderr)
    return 3 if run.failures() else 0


def result_from(photograph: Photograph, known: Photograph | None, folder: Path) -> Result:
    """The result of `folder` for it; `known`: as it was exported."""
    found, caption = photograph.found, photograph.caption or (known.caption if known else "")
    check_one_size([one.mask for one in found])
    phrases = [Phrase(one.phrase, span, span, ()) for one, span in zip(found, spans(caption, found), strict=True)]
    return result_of(
        phrases,
        [one.mask for one in found],
        [one.point_xy or deepest_xy(rle.decoded(one.mask)) for one in found],
        [BY_HAND if one.score is None else one.score for one in found],
        image_id=id_of(photograph.key) or photograph.key,
        image=_place(photograph, known, folder),
        caption=caption,
        question=photograph.question or (known.question if known else ""),
    )


def spans(caption: str, found: Sequence[Found]) -> list[tuple[int, int]]:
    """The characters of each phrase in the caption; (0, 0) of one that is not there. Of phrases with the same words the
    next has the next place."""
    next_place: dict[str, int] = {}
    placed = []
    for one in found:
        span = span_in(caption, one, next_place.get(one.phrase, 0))
        span = span if span is not None and span[1] <= len(caption) else (0, 0)
        next_place[one.phrase] = max(span[1], next_place.get(one.phrase, 0))
        placed.append(span)
    return placed


def _place(photograph: Photograph, known: Photograph | None, folder: Path) -> str | None:
    """Where the photograph is, seen from `folder`; None where nobody knows."""
    sources = [photograph.source, known.source if known else None]
    paths = [one for one in sources if isinstance(one, Path) and one.is_file()]
    return Path(os.path.relpath(paths[0], folder)).as_posix() if paths else None
