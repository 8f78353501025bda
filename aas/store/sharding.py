"""Items into shards, and back (`shards.py`).

A run writes each item as a file, whatever its size: so a kill costs nothing that is done. Where there are very many,
those that follow each other in the work list are put into a shard once all of them are done. Which shard holds an item
depends on its place in the list alone, and the order within on its name: whoever does the items, in whatever order, and
however often he is killed, the shards are the same.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from aas.store.atomic import locked, settle, write_bytes, write_text
from aas.store.keys import ATTENTION_SUFFIX, RESULT_SUFFIX
from aas.store.lines import lines_text
from aas.store.made_of import Notes
from aas.store.pieces import KINDS, Piece, loose
from aas.store.runs import RunFolder
from aas.store.shards import RESULT, Shards, shards_of
from aas.store.spools import bring
from aas.store.status import open_run

MOST_LOOSE = 10_000  # items of a run whose items stay files
SHARD_ITEMS = 256
AT_ONCE = 256  # shards, when a folder is converted: what is noted of its items is read and written so seldom

log = logging.getLogger(__name__)
Pieces = Mapping[str, Piece]  # by the name of an item's file


class Gathering:
    """Puts the items of a run into shards while they are done. `groups`: the keys of all items, of each shard's
    together; `waiting`: those that this process will do."""

    def __init__(self, run: RunFolder, groups: Sequence[Sequence[str]], waiting: Iterable[str]):
        self.run, self.groups = run, groups
        mine = set(waiting) if groups else set()
        self.group = {key: number for number, keys in enumerate(groups) for key in keys if key in mine}
        self.left = Counter(self.group.values())

    def begin(self) -> None:
        """Gather what was complete when a run was killed, or was done while it had fewer items."""
        loose_names = self.run.loose() if self.groups and self.run.path.is_dir() else set()
        numbers = [
            number
            for number, keys in enumerate(self.groups if loose_names else ())
            if not self.left[number] and not loose_names.isdisjoint(map(self.run.item_name, keys))
        ]
        self._gather(numbers)

    def count(self, key: str) -> None:
        """An item more that is done, or failed."""
        number = self.group.pop(key, None)
        if number is not None:
            self.left[number] -= 1
            if not self.left[number]:
                self._gather([number])

    def _gather(self, numbers: Iterable[int]) -> None:
        gather(self.run, {number: self._names(number) for number in numbers if self._is_complete(number)})

    def _names(self, number: int) -> list[str]:
        return [self.run.item_name(key) for key in self.groups[number]]

    def _is_complete(self, number: int) -> bool:
        """Not where another process has some of the items yet: it will gather them."""
        missing = {key for key in self.groups[number] if not self.run.is_done(key)}
        return not missing or missing <= self.run.failed_keys()


def gather(run: RunFolder, shards: Mapping[int, Iterable[str]]) -> list[str]:
    """Put items that have files into shards, by number and names, beside those that they hold already. The names of
    files that are not whole, which stay."""
    broken, parts = list[str](), iter(shards.items())
    while some := dict(islice(parts, AT_ONCE)):
        with locked(shards_of(run.path).path):
            broken += _gathered(run, some)
    return broken


def _gathered(run: RunFolder, shards: Mapping[int, Iterable[str]]) -> list[str]:
    """The files go last: until then, whoever is killed does it again."""
    notes, broken, gathered = run.made_of.notes(), list[str](), set[str]()
    for number, names in shards.items():
        found = {name: _whole(run.path / name, notes.of(name).get(RESULT)) for name in files_of(run, names)}
        pieces = {name: piece for name, piece in found.items() if piece is not None}
        broken += found.keys() - pieces.keys()
        try:
            if pieces:
                put(shards_of(run.path), number, pieces, {name: notes.of(name) for name in pieces})
                gathered |= pieces.keys()
        except ValueError as error:  # the shard is damaged
            log.warning("%s: what belongs into it stays beside it", error)
            broken += pieces
    for folder in (shards_of(run.path).path, run.path):
        settle(folder)
    if known := gathered & notes.own.keys():
        run.made_of.drop(known)
    for name in sorted(gathered, key=lambda name: name.endswith(run.suffix)):  # what tells of the others last
        (run.path / name).unlink(missing_ok=True)
    return broken


def files_of(run: RunFolder, names: Iterable[str]) -> Iterator[str]:
    """Of items the names of their files, as far as they have some: a result may have its maps beside it."""
    names = list(names)
    besides = [f"{name.removesuffix(RESULT_SUFFIX)}{ATTENTION_SUFFIX}" for name in names]
    bring(run.path, [*names, *besides])
    for name, beside in zip(names, besides, strict=True):
        if (run.path / name).is_file():
            yield name
            if beside != name and run.suffix == RESULT_SUFFIX and (run.path / beside).is_file():
                yield beside


def _whole(path: Path, written_as: Sequence[Any] | None) -> Piece | None:
    """None where it is no item, or has other bytes than were written: `aas verify` shall say so."""
    try:
        piece = loose(path)
        is_whole = written_as is None or piece.digest() == written_as[0]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return piece if is_whole else None


def put(shards: Shards, number: int, pieces: Pieces, notes: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a shard of `pieces` and what it holds already. Whoever else may do that must wait."""
    lines = shards.notes(number) | {name: _line(name, piece, notes[name]) for name, piece in pieces.items()}
    both = dict(sorted({**shards.all_pieces(number), **pieces}.items()))
    for suffix, kind in KINDS.items():
        if some := {name: piece for name, piece in both.items() if name.endswith(suffix)}:
            kind.write(shards.file(number, suffix), some)
    write_text(shards.index(number), lines_text(lines[name] for name in both))


def _line(name: str, piece: Piece, note: Mapping[str, Any]) -> dict[str, Any]:
    """Of the index; the file's times are left out, since it will be gone."""
    told = {key: note[key] for key in sorted(note) if key not in ("item", RESULT)}
    return {"item": name, **told, RESULT: [note[RESULT][0] if RESULT in note else piece.digest(), None]}


# ------------------------------------------------------------------------------------------------ `aas shard`


def shard(folder: Path) -> tuple[int, list[str]]:
    """Put the items of a run that have files of their own into shards, by name; how many, and the names of those that
    are not whole, which stay. Raises ValueError for what is no run folder."""
    run, _ = open_run(folder)
    names, first = sorted(run.loose()), max(shards_of(folder).numbers(), default=-1) + 1
    parts = [names[start : start + SHARD_ITEMS] for start in range(0, len(names), SHARD_ITEMS)]
    broken = gather(run, dict(enumerate(parts, start=first)))
    return len(names) - len(broken), broken


def unshard(folder: Path) -> tuple[int, list[str]]:
    """Give the items that lie in shards files of their own again; how many, and what is wrong with shards
    that stay, a line each. Raises ValueError for what is no run folder."""
    run, _ = open_run(folder)
    shards, n_items, wrong = shards_of(folder), 0, list[str]()
    numbers = shards.numbers()
    with locked(shards.path) if numbers else nullcontext():
        notes = run.made_of.notes()
        for number in numbers:
            try:
                n_items += _taken_out(run, shards, number, notes)
            except ValueError as error:
                wrong.append(f"{error}: delete {shards.index(number)}, and its items are made anew")
    if not wrong:
        shutil.rmtree(shards.path, ignore_errors=True)
    return n_items, wrong


def _taken_out(run: RunFolder, shards: Shards, number: int, notes: Notes) -> int:
    pieces = shards.all_pieces(number)
    for name, piece in pieces.items():
        if not (run.path / name).exists():
            write_bytes(run.path / name, piece.content())
    items = [name for name in pieces if name.endswith(run.suffix)]
    run.made_of.add([{**notes.of(name)} for name in items])
    for path in (shards.index(number), *(shards.file(number, suffix) for suffix in KINDS)):
        path.unlink(missing_ok=True)
    return len(items)
