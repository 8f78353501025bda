"""Shards: where a run folder of very many items keeps them, 256 files in one (`pieces.py`), and how one is found there.

`shards/000012.index.jsonl` has a line for each item of a shard: what was noted of it (`made_of.py`), and the SHA-256 of
its bytes. The file is the last that is written and holds nothing but names that the others have, so it may be killed at
any time: what it does not say is not done. An item goes by the path of the file that it would be, in the run folder;
where that is there too, it holds.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from aas.store.lines import whole_lines
from aas.store.pieces import KINDS, Piece, Replaced, Stamp, stamp_of
from aas.store.spools import content_at, facts_at, here, names_at

FOLDER = "shards"
INDEX = ".index.jsonl"
FRESH_SECONDS = 2  # file systems keep times of so many seconds: within them a file may change and look the same
ASKED, RESULT = "asked", "result"  # of a note: the fingerprint of a line of --answers; the item itself, once written
_NAME = re.compile(r"\d{6,}\..*")
_SUFFIXES = tuple(KINDS)
Note = dict[str, Any]  # of an item, as in its line


class Shards:
    """Those of a run folder, as far as they were looked at; it is looked again where an item is not known."""

    def __init__(self, folder: Path):
        self.path = folder / FOLDER
        self._where: dict[str, int] = {}  # item -> number of its shard
        self._items: dict[int, list[str]] = {}
        self._stamps: dict[int, Stamp] = {}
        self._looked: int | None = None  # when the folder had changed last, where that time can be trusted

    def names(self) -> Mapping[str, int]:
        """Item -> number of its shard, of all that are there now."""
        self._look()
        return self._where

    def numbers(self) -> list[int]:
        """Of all shards that are there now."""
        self._look()
        return sorted(self._stamps)

    def items(self, number: int) -> list[str]:
        """Those of a shard, in its order."""
        return list(self.notes(number))

    def notes(self, number: int) -> dict[str, Note]:
        """Item -> what is noted of it, of one shard; nothing where there is none."""
        index = self.index(number)
        try:
            return _notes(index, _stamp(index))
        except FileNotFoundError:
            return {}

    def note(self, name: str) -> Note | None:
        """Of an item; None of one that is in no shard."""
        number = self.find(name)
        return None if number is None else self.notes(number).get(name)

    def find(self, name: str) -> int | None:
        """The number of an item's shard."""
        number = self._where.get(name)
        if self._may_be_new() if number is None else not self._is_as_it_was(number):
            self._look()
        return self._where.get(name)

    def piece(self, name: str) -> Piece | None:
        """Where an item's bytes are; None where it is in no shard. Raises ValueError where the shard is damaged."""
        number = self.find(name)
        return None if number is None else self.pieces(number, Path(name).suffix).get(name)

    def pieces(self, number: int, suffix: str) -> Mapping[str, Piece]:
        """Item -> where its bytes are, of all items of that suffix in a shard."""
        path = here(self.file(number, suffix))
        try:
            return _pieces(path, suffix, _stamp(path))
        except FileNotFoundError:
            return {}

    def all_pieces(self, number: int) -> dict[str, Piece]:
        """As `pieces`, of whatever suffix."""
        there = self.notes(number)
        if not there:
            return {}
        return {name: piece for suffix in KINDS for name, piece in self.pieces(number, suffix).items() if name in there}

    def index(self, number: int) -> Path:
        """The file that says what a shard holds."""
        return self.path / f"{number:06}{INDEX}"

    def file(self, number: int, suffix: str) -> Path:
        """The file of a shard's items of that suffix."""
        return self.path / f"{number:06}{KINDS[suffix].suffix}"

    def _is_as_it_was(self, number: int) -> bool:
        try:
            return _stamp(self.index(number)) == self._stamps[number]
        except FileNotFoundError:
            return False

    def _may_be_new(self) -> bool:
        """Whether the folder of shards is another than when it was looked at: to list it for each item that is in no
        shard would take long."""
        try:
            return self.path.stat().st_mtime_ns != self._looked
        except (FileNotFoundError, NotADirectoryError):
            return bool(self._stamps)

    def _look(self) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            changed = self.path.stat().st_mtime_ns
            self._looked = changed if time.time() - changed / 1e9 > FRESH_SECONDS else None
        there = self._there()
        for number in [number for number, stamp in self._stamps.items() if there.get(number) != stamp]:
            self._forget(number)
        for number, stamp in there.items():
            if number not in self._stamps:
                self._stamps[number] = stamp
                self._items[number] = list(_notes.__wrapped__(self.index(number)))
                self._where.update(dict.fromkeys(self._items[number], number))

    def _forget(self, number: int) -> None:
        del self._stamps[number]
        for name in self._items.pop(number):
            if self._where.get(name) == number:
                del self._where[name]

    def _there(self) -> dict[int, Stamp]:
        """Numbers of shards -> what changes when their index does; those alone whose items are there too."""
        try:
            with os.scandir(self.path) as entries:
                files = {entry.name: entry for entry in entries if _NAME.fullmatch(entry.name)}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        has_items = {name.split(".", 1)[0] for name in files.keys() | names_at(self.path) if not name.endswith(INDEX)}
        stems = sorted(name.removesuffix(INDEX) for name in files if name.endswith(INDEX))
        return {int(stem): stamp_of(files[f"{stem}{INDEX}"].stat()) for stem in stems if stem in has_items}


def _stamp(path: Path) -> Stamp:
    return stamp_of(path.stat())


@lru_cache(maxsize=16)
def _notes(index: Path, *_: Stamp) -> dict[str, Note]:
    """The lines of an index that are whole."""
    lines: Iterable[Any]
    try:  # all at once, which takes a third of the time
        lines = json.loads(b"[%b]" % index.read_bytes().rstrip().replace(b"\n", b","))
    except (ValueError, RecursionError):
        lines = whole_lines(index, lambda _: True)
    return {line["item"]: line for line in lines if isinstance(line, dict) and _is_held(line)}


def _is_held(line: Mapping[str, Any]) -> bool:
    return RESULT in line and is_note(line) and line["item"].endswith(_SUFFIXES)


def is_note(entry: Mapping[str, Any]) -> bool:
    """Whether it says of an item what it was asked, and [SHA-256, stamp] of files that it was made of."""
    for key, value in entry.items():
        if key not in ("item", ASKED) and not (isinstance(value, list) and len(value) == 2):
            return False
    return isinstance(entry.get("item"), str)


@lru_cache(maxsize=16)
def _pieces(path: Path, suffix: str, *_: Stamp) -> Mapping[str, Piece]:
    try:
        return KINDS[suffix].pieces(path)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error


@lru_cache(maxsize=8)
def shards_of(folder: Path) -> Shards:
    """Those of a run folder; what was learnt of it is kept."""
    return Shards(folder)


# -------------------------------------------------------------------------------------- files, wherever they are


def is_there(path: Path) -> bool:
    """Whether an item has a file, of its own, in a shard, or at the URL of its run."""
    return path.is_file() or facts_at(path) is not None or is_in_a_shard(path)


def is_in_a_shard(path: Path) -> bool:
    """Whether an item is in a shard of its folder."""
    return shards_of(path.parent).find(path.name) is not None


def files_in(folder: Path) -> list[Path]:
    """The files that lie in a folder, or at its URL, and the items that lie in its shards by theirs, by name."""
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.is_file()} | names_at(folder)
    return [folder / name for name in sorted(names.union(shards_of(folder).names()))]


def content_of(path: Path) -> bytes:
    """The bytes of an item's file, wherever it is. Raises FileNotFoundError where it has none, ValueError where its
    shard is damaged."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        found = elsewhere(path)
        if found is None:
            raise
        return found


def elsewhere(path: Path) -> bytes | None:
    """The bytes of an item that has no file here: at the URL of its run, or in a shard; None where it is nowhere."""
    found = content_at(path)
    return _sharded(path) if found is None else found


def _sharded(path: Path) -> bytes | None:
    shards = shards_of(path.parent)
    while (piece := shards.piece(path.name)) is not None:
        with suppress(Replaced):  # a shard that got another item meanwhile
            return piece.content()
    return None
