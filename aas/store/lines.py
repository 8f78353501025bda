"""Files of JSON lines that grow while many processes work: what a kill cut off costs no other line."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def add_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Put entries at the end of a file, which is made where it is missing. Whoever else writes it must wait."""
    text = lines_text(entries)
    with path.open("ab+") as file:
        end = file.tell()
        if end:  # behind a line that was cut off, a new one
            file.seek(end - 1)
            text = text if file.read(1) == b"\n" else f"\n{text}"
        file.write(text.encode("utf-8", "backslashreplace"))


def lines_text(entries: Iterable[Mapping[str, Any]]) -> str:
    """A line each."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def whole_lines(path: Path, is_ours: Callable[[dict[str, Any]], bool]) -> Iterator[dict[str, Any]]:
    """The entries of a file that are whole and of the right kind; none where there is no file."""
    if not path.is_file():
        return
    with path.open("rb") as file:  # in bytes a line ends at \n only
        for line in file:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict) and is_ours(entry):
                yield entry
