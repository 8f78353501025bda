"""What each item of a run was made of: its photograph, its attention, its line of --answers. A run that goes on notices
others of the same names.

A file is told by the SHA-256 of its bytes. At a later start it is read again only where its size, times or place on the
disk are others than they were, as git does it: a copy, on whatever file system, costs one more reading and is the
same; a run of a million photographs that goes on reads none of them.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import file_digest
from pathlib import Path
from typing import Any

from aas.photographs import File
from aas.store.atomic import locked
from aas.store.lines import add_lines, whole_lines

FRESH_SECONDS = 2  # file systems keep times of so many seconds: within them a file may change and look the same
Files = Mapping[str, File]  # what it is to the item (photograph, attention) -> file
ASKED = "asked"
RESULT = "result"  # the item itself, once it was written


class MadeOf:
    """The notes of a run folder; of several lines about one item the last holds. Items go by the names of their
    files."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / ".made_of.jsonl"

    def note(self, item: str, files: Files) -> None:
        """The files that an item is made of; what is no file is passed over."""
        self._add([{"item": item, **_told(files)}])

    def others(self, items: Mapping[str, Files]) -> list[str]:
        """What items were made of and is another file now, as `photograph of ITEM`. What was never noted, or is gone,
        is passed over."""
        there, changed, copied = self._notes(), [], []
        for item, files in items.items():
            noted = there.get(item, {})
            others = {kind: file for kind, file in files.items() if kind in noted and _may_differ(file, noted[kind][1])}
            changed += [f"{kind} of {item}" for kind, file in others.items() if digest_of(file) != noted[kind][0]]
            if others:
                copied.append({"item": item, **_told(others)})
        if not changed:
            self._add(copied)  # so that it is read this once
        return changed

    def others_asked(self, asked: Mapping[str, str], free: Collection[str] = ()) -> list[str]:
        """Items that were asked something else; those in `free` may be. Where there is none, what is new is noted."""
        if asked and self._new(asked, self._notes()):
            with locked(self.folder):  # of two runs that begin at once, one sees the other's
                there = self._notes()
                new = self._new(asked, there)
                changed = [item for item in new if ASKED in there.get(item, {}) and item not in free]
                if changed:
                    return changed
                add_lines(self.path, [{"item": item, ASKED: line} for item, line in new.items()])
        return []

    def knows_what_was_asked(self) -> bool:
        """Whether lines of --answers are noted."""
        return any(ASKED in note for note in self._notes().values())

    def items(self) -> set[str]:
        """All that something is noted of."""
        return set(self._notes())

    def digests(self, kind: str) -> dict[str, str]:
        """Item -> SHA-256 of the file that it was made of."""
        return {item: note[kind][0] for item, note in self._notes().items() if kind in note}

    def _new(self, asked: Mapping[str, str], there: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        return {item: line for item, line in asked.items() if there.get(item, {}).get(ASKED) != line}

    def _notes(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for entry in whole_lines(self.path, _is_note):
            found.setdefault(entry["item"], {}).update(entry)
        return found

    def _add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if entries:
            with locked(self.folder):
                add_lines(self.path, entries)


def _is_note(entry: Mapping[str, Any]) -> bool:
    files = [value for key, value in entry.items() if key not in ("item", ASKED)]
    return isinstance(entry.get("item"), str) and all(isinstance(one, list) and len(one) == 2 for one in files)


def _told(files: Files) -> dict[str, Any]:
    return {kind: [digest_of(file), _stamp(file)] for kind, file in files.items() if file.is_file()}


def _may_differ(file: File, stamp: list[int] | None) -> bool:
    """Whether a file that is there must be read to know that it is the same."""
    try:
        return (stamp is None or _stamp(file) != stamp) and file.is_file()
    except OSError:  # it is gone
        return False


def _stamp(file: File) -> list[int] | None:
    """What changes when a file does; None where that cannot be trusted yet."""
    if not isinstance(file, Path):
        return file.stamp()
    found = os.stat(file)
    if time.time() - max(found.st_mtime, found.st_ctime) < FRESH_SECONDS:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def digest_of(file: File) -> str:
    """SHA-256 of its bytes, hexadecimal."""
    stamp = _stamp(file)
    return _digest(file) if stamp is None else _digest_once(file, *stamp)


@lru_cache(maxsize=256)
def _digest_once(file: File, *_: int) -> str:
    """Many items may be about one photograph."""
    return _digest(file)


def _digest(file: File) -> str:
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
