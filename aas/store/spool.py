"""Run folders at URLs (s3://, gs://, memory://): a folder of this machine for each process that opens one, its spool.

Data goes one way. A run is filled in the spool as in any folder, with locks, renames and lines that are added; what is
finished there is sent, as whole objects, and leaves the spool. What is read is in the spool, or is fetched. So a
result's file in the spool is one that the store does not have yet: a process that is killed leaves it there, and the
next one of this machine sends it (`spools.py`). The few files that grow or are read again stay (`KEPT`): they are
fetched at the start, and sent when they changed. Every object has one process that writes it.
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock

from aas.photographs.store import Facts
from aas.store.addresses import Spooled, check_length, this_process
from aas.store.atomic import PART, write_bytes
from aas.store.keys import RESULT_SUFFIX
from aas.store.objects import Objects
from aas.store.pieces import Stamp, stamp_of

LOGS = ("failed.jsonl", ".made_of.jsonl")
KEPT = re.compile(r"run\.json|(failed|\.made_of)(\.[^/]+)?\.jsonl|\.workers/[^/]+\.json|shards/\d{6,}\.index\.jsonl")
INDEX = ".index.jsonl"  # ends the name of a shard's
FETCHED = ".fetched"  # the folder of shards that were fetched to be read
FOLDERS = ("", "shards", ".workers")
YOUNG_SECONDS = 2.0  # what is written of an item afterwards is noted by then


class Spool:
    """That of a run folder, in the process that began it and in its children, which only read it. Raises StoreError
    where the store cannot be listed or read, ValueError for a URL that cannot hold results."""

    def __init__(self, run: Spooled):
        check_length(run)
        self.run, self.objects, self.lock = run, Objects(run.url), RLock()
        self.there = self.objects.listed()
        self.sent: dict[str, Stamp] = {}  # a kept file -> as it was when it was fetched or sent
        self.writer = ""  # in the names of this process's logs, where others write some too
        self.last: tuple[str, bytes | None] = ("", None)  # that was read: for its digest, then for itself
        self.ahead: dict[str, bytes] = {}  # what will be read next
        self.brought: set[str] = set()  # items that were sent, and are here again to go into shards
        if is_mine(run):
            self._fetch()

    def _fetch(self) -> None:
        self.run.mkdir(parents=True)
        for name, content in self.objects.read_all(name for name in self._kept() if not is_log(name)):
            self._keep(name, content)
        logs = dict(self.objects.read_all(filter(is_log, self._kept())))
        for name in LOGS:
            if parts := [logs[one] for one in sorted(logs, key=len) if _plain(one) == name]:
                self._keep(name, merged(parts))

    def _kept(self) -> Iterator[str]:
        """The objects that are fetched at the start."""
        return (name for name in self.there if KEPT.fullmatch(name))

    def _keep(self, name: str, content: bytes) -> None:
        write_bytes(self.run / name, content)
        self.sent[name] = stamp_of((self.run / name).stat())

    # ------------------------------------------------------------------------------------------------ reading

    def names(self, folder: str = "") -> set[str]:
        """Of the objects of a folder of the run."""
        within = f"{folder}/" if folder else ""
        names = (name.removeprefix(within) for name in list(self.there) if name.startswith(within))
        return {name for name in names if "/" not in name}

    def read(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        if name not in self.there:
            return None
        if name in self.ahead:
            return self.ahead[name]
        there, content = self.last
        if there != name:
            content = dict(self.objects.read_all([name])).get(name)
            self.last = (name, content)
        return content

    def read_ahead(self, names: Iterable[str]) -> None:
        """Objects that will be read next, together, before others are."""
        self.ahead = dict(self.objects.read_all(name for name in names if name in self.there))

    def bring(self, names: Iterable[str]) -> None:
        """Items that were sent, to be gathered with others; their objects go when those of the shards are there."""
        missing = [name for name in names if name in self.there and not (self.run / name).exists()]
        for name, content in self.objects.read_all(missing):
            write_bytes(self.run / name, content)
            self.brought.add(name)

    def fetched(self, name: str) -> Path:
        """The path of a shard's file, which is fetched where it is not in the spool."""
        path, copy = self.run / name, self.run / FETCHED / name
        if path.exists() or name not in self.there:
            return path
        if not copy.exists():
            write_bytes(copy, self.objects.read(name))
        return copy

    # ------------------------------------------------------------------------------------------------ sending

    def send(self, is_last: bool = False, with_items: bool = True) -> None:
        """Whatever is finished and not there yet; of items the file that says that they are done goes last, of shards
        the index. Before the end without what is younger than YOUNG_SECONDS, and where `with_items` is off without
        items that will go into shards. Raises StoreError."""
        with self.lock:
            gathered = {name for name in self.brought if not (self.run / name).exists()}  # their index is written
            files = {name: path for name, path in self._files() if is_last or KEPT.fullmatch(name) or _is_old(path)}
            items = {name for name in files if not KEPT.fullmatch(name) and (with_items or "/" in name)}
            kept = {name for name in files if KEPT.fullmatch(name)}
            indexes = {name for name in kept if name.startswith("shards/")}
            last = {name for name in items if name.endswith(RESULT_SUFFIX)} | indexes
            for names in filter(None, (kept - indexes, items - last, last)):
                self._write({name: files[name] for name in sorted(names)})
            self._remove_gone()
            self._remove(gathered & self.there.keys())
            self.brought -= gathered

    def has_unsent(self) -> bool:
        """Whether any item is here only."""
        return any(not KEPT.fullmatch(name) for name, _ in self._files())

    def _files(self) -> Iterator[tuple[str, Path]]:
        """By name, those that are whole, and not what is only of this machine."""
        for folder in FOLDERS:
            with suppress(FileNotFoundError), os.scandir(self.run / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    is_ours = not entry.name.startswith(".") or KEPT.fullmatch(name)
                    if entry.is_file() and is_ours and not entry.name.endswith(PART):
                        yield name, self.run / name

    def _write(self, files: Mapping[str, Path]) -> None:
        stamps = {name: stamp for name, path in files.items() if (stamp := _stamp(path)) is not None}
        changed = {name: stamp for name, stamp in stamps.items() if self.sent.get(name) != stamp}
        if changed:
            self.objects.write({self._object(name): files[name] for name in changed})
        for name, stamp in changed.items():
            self.there[self._object(name)] = Facts(stamp[1], None)
            if KEPT.fullmatch(name):
                self.sent[name] = stamp
            elif _stamp(files[name]) == stamp:
                (self.run / FETCHED / name).unlink(missing_ok=True)
                files[name].unlink()

    def _remove_gone(self) -> None:
        """Of the files that stay here: what was taken away is to be no object either."""
        gone = [name for name in self.sent if not (self.run / name).exists()]
        self._remove([self._object(name) for name in gone if self._object(name) in self.there])
        for name in gone:
            del self.sent[name]

    def _object(self, name: str) -> str:
        """What the object of a file is called."""
        return f"{name.removesuffix('.jsonl')}.{self.writer}.jsonl" if self.writer and name in LOGS else name

    def _remove(self, objects: Iterable[str]) -> None:
        objects = list(objects)
        if objects:
            self.objects.remove(objects)
        for name in objects:
            self.there.pop(name, None)

    # ------------------------------------------------------------------------------------- logs of several processes

    def begin_logs(self, is_shared: bool) -> None:
        """Where others fill the run too (`is_shared`) this process's logs have names of their own. Alone it takes over
        what others left."""
        self.writer = self.run.parent.name if is_shared else ""
        others = [name for name in self.there if is_log(name) and name not in LOGS]
        if is_shared or not others:
            return
        for name in LOGS:
            self.sent.pop(name, None)
        self.send()
        self._remove(others)


def is_mine(run: Spooled) -> bool:
    """Whether this process began the spool, and not its parent."""
    return run.parent.name == this_process()


def is_log(name: str) -> bool:
    """Whether an object is a log of some process."""
    return _plain(name) in LOGS


def _plain(name: str) -> str:
    """What a log is called where one process alone writes it."""
    of_one = (one for one in LOGS if name.startswith(one.removesuffix("jsonl")) and name.endswith(".jsonl"))
    return next(of_one, name)


def merged(logs: Iterable[bytes]) -> bytes:
    """The lines of all, each once."""
    return b"".join(dict.fromkeys(line + b"\n" for log in logs for line in log.splitlines() if line))


def _stamp(path: Path) -> Stamp | None:
    """None of a file that is gone."""
    with suppress(FileNotFoundError):
        return stamp_of(path.stat())
    return None


def _is_old(path: Path) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > YOUNG_SECONDS
    return False
