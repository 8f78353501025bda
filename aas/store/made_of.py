"""What each item of a run was made of: its photograph, its attention, its line of --answers. A run that goes on notices
others of the same names.

A file is told by the SHA-256 of its bytes. At a later start it is read again only where its size, times or place on the
disk are others than they were, as git does it: a copy, on whatever file system, costs one more reading and is the
same; a run of a million photographs that goes on reads none of them.
"""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from aas.photographs import File
from aas.store.atomic import locked, write_text
from aas.store.lines import add_lines, lines_text, whole_lines
from aas.store.shards import ASKED, FRESH_SECONDS, RESULT, content_of, is_note, shards_of
from aas.store.spools import facts_at

Files = Mapping[str, File]  # what it is to the item (photograph, attention) -> file


class Notes:
    """What is noted of the items of a run, as it is now: of those in shards by their shards, and by the folder's own
    lines, of which the last holds."""

    def __init__(self, folder: Path, own: Path):
        self.own: dict[str, dict[str, Any]] = {}
        for entry in whole_lines(own, is_note):
            self.own.setdefault(entry["item"], {}).update(entry)
        self.shards = shards_of(folder)
        self.numbers = self.shards.names()
        self.number, self.notes = -1, dict[str, dict[str, Any]]()  # the shard that was looked into last

    def of(self, item: str) -> Mapping[str, Any]:
        """Of an item by its file's name; nothing where nothing is noted."""
        own, number = self.own.get(item, {}), self.numbers.get(item)
        if number is None:
            return own
        if number != self.number:
            self.number, self.notes = number, self.shards.notes(number)
        in_shard = self.notes.get(item, {})
        return in_shard | own if own else in_shard

    def __iter__(self) -> Iterator[str]:
        yield from self.numbers
        yield from (item for item in self.own if item not in self.numbers)


class MadeOf:
    """The notes of a run folder. Items go by the names of their files."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / ".made_of.jsonl"

    def notes(self) -> Notes:
        """As they are now."""
        return Notes(self.folder, self.path)

    def told_of(self, item: str, files: Files) -> dict[str, Any]:
        """The line about an item that is made of these files; what is no file is passed over."""
        return {"item": item, **_told(files)}

    def others(self, items: Iterable[tuple[str, Files]]) -> list[str]:
        """What items were made of and is another file now, as `photograph of ITEM`. What was never noted, or is gone,
        is passed over."""
        there, changed, copied = self.notes(), [], []
        for item, files in items:
            noted = there.of(item)
            looked_at = {kind: file for kind, file in files.items() if kind in noted}
            others = {kind: file for kind, file in looked_at.items() if not _is_as_it_was(file, noted[kind][1])}
            if not others:
                continue
            told = _told(others)
            changed += [f"{kind} of {item}" for kind, (digest, _) in told.items() if digest != noted[kind][0]]
            if any(noted[kind] != now for kind, now in told.items()):
                copied.append({"item": item, **told})
        if not changed:
            self.add(copied)  # so that it is read this once
        return changed

    def others_asked(self, asked: Mapping[str, str], free: Collection[str] = ()) -> list[str]:
        """Items that were asked something else; those in `free` may be. Where there is none, what is new is noted."""
        if asked and self._new(asked, self.notes()):
            with locked(self.folder):  # of two runs that begin at once, one sees the other's
                there = self.notes()
                new = self._new(asked, there)
                changed = [item for item in new if ASKED in there.of(item) and item not in free]
                if changed:
                    return changed
                add_lines(self.path, [{"item": item, ASKED: line} for item, line in new.items()])
        return []

    def knows_what_was_asked(self) -> bool:
        """Whether lines of --answers are noted."""
        there = self.notes()
        return any(ASKED in there.of(item) for item in there)

    def digests(self, kind: str) -> dict[str, str]:
        """Item -> SHA-256 of the file that it was made of."""
        there = self.notes()
        return {item: note[kind][0] for item in there if kind in (note := there.of(item))}

    def add(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Lines about items, which hold over those before."""
        if entries:
            with locked(self.folder):
                add_lines(self.path, entries)

    def drop(self, items: Collection[str]) -> None:
        """Take out the folder's own lines about items, which are noted elsewhere."""
        with locked(self.folder):
            kept = [entry for entry in whole_lines(self.path, is_note) if entry["item"] not in items]
            write_text(self.path, lines_text(kept))

    def _new(self, asked: Mapping[str, str], there: Notes) -> dict[str, str]:
        return {item: line for item, line in asked.items() if there.of(item).get(ASKED) != line}


def _told(files: Files) -> dict[str, Any]:
    return {kind: found for kind, file in files.items() if (found := _digest_and_stamp(file)) is not None}


def _digest_and_stamp(file: File) -> list[Any] | None:
    """None where there is no file. An item in a shard is told by its shard, which is not read for it."""
    if file.is_file() or (isinstance(file, Path) and facts_at(file) is not None):
        return [digest_of(file), _stamp(file)]
    if not isinstance(file, Path):
        return None
    note = shards_of(file.parent).note(file.name)
    return None if note is None else [note[RESULT][0], None]


def _is_as_it_was(file: File, stamp: list[Any] | None) -> bool:
    """Whether a file need not be looked into to know that it is the same."""
    try:
        return stamp is not None and _stamp(file, is_new=False) == stamp
    except OSError:  # it is gone, or in a shard by now
        return False


def _stamp(file: File, is_new: bool = True) -> list[Any] | None:
    """What changes when a file does; None where that cannot be trusted yet. One that is held against a stamp of before,
    which could be trusted then, is not `is_new`."""
    if not isinstance(file, Path):
        return file.stamp()
    if (facts := facts_at(file)) is not None and not file.is_file():
        return None if facts.id is None else [facts.size, facts.id]
    found = os.stat(file)
    if is_new and time.time() - max(found.st_mtime, found.st_ctime) < FRESH_SECONDS:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def digest_of(file: File) -> str:
    """SHA-256 of its bytes, hexadecimal. `file` may be an item that lies in a shard."""
    try:
        stamp = _stamp(file)
    except FileNotFoundError:
        if not isinstance(file, Path):
            raise
        return sha256(content_of(file)).hexdigest()
    return _digest(file) if stamp is None else _digest_once(file, *stamp)


@lru_cache(maxsize=256)
def _digest_once(file: File, *_: int) -> str:
    """Many items may be about one photograph."""
    return _digest(file)


def _digest(file: File) -> str:
    if isinstance(file, Path) and not file.is_file():
        return sha256(content_of(file)).hexdigest()
    with file.open("rb") as content:
        return file_digest(content, "sha256").hexdigest()
