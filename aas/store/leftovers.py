"""What killed processes of this machine left in their spools (`spool.py`): results that were never sent.

A spool lies in a folder of its process, CACHE/URL/PROCESS, with marks beside the run and a lock that ends with the
process. A process that fills the same run later takes over what is in those without an owner.
"""

import json
import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from aas.store.atomic import write_bytes
from aas.store.description import read_description
from aas.store.spool import INDEX, LOGS, Spool, merged

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
FILLING, BEGUN = "filling", "begun"  # marks: it is filled here; its run.json was sent

log = logging.getLogger(__name__)


def adopt(spool: Spool) -> None:
    """Take over what killed processes of this machine finished of the same run and could not send."""
    mine = spool.run.parent
    names = {name.removesuffix(LOCK) for name in os.listdir(mine.parent)} - {mine.name}
    for left in (mine.parent / name for name in sorted(names)):
        with _lock_of(left).open("ab+") as lock:  # for no other to take it at the same time
            if _is_locked(lock) and _may_go(left, spool):
                forget(left)


def _may_go(left: Path, spool: Spool) -> bool:
    """Takes over what is there, if it is of the same run; whether nothing is needed of it any more."""
    theirs, mine = (folder / spool.run.name / "run.json" for folder in (left, spool.run.parent))
    if not (left / FILLING).exists() or not theirs.is_file():
        return True
    if not mine.is_file():
        if (left / BEGUN).exists():  # it was sent, and somebody deleted the run since
            return True
        write_bytes(mine, theirs.read_bytes())
    elif not _are_of_one_run(theirs, mine):
        log.warning("results of another run at %s were never sent: see %s", spool.run, os.fspath(left))
        return False
    _take(theirs.parent, spool)
    return True


def _are_of_one_run(first: Path, second: Path) -> bool:
    asked = [(one["command"], json.dumps(one["arguments"])) for one in map(read_description, (first, second))]
    return asked[0] == asked[1]


def _take(theirs: Path, spool: Spool) -> None:
    for name in LOGS:
        parts = [folder / name for folder in (theirs, spool.run)]  # of two lines about an item the last holds
        if parts[0].is_file():
            write_bytes(spool.run / name, merged(part.read_bytes() for part in parts if part.is_file()))
    items = [path for path in _within(theirs) if path.is_file() and not path.name.startswith(".")]
    for path in (*items, *_new_shards(theirs / "shards", spool)):
        name = path.relative_to(theirs).as_posix()
        if name not in (*LOGS, "run.json") and name not in spool.there:
            (spool.run / name).parent.mkdir(exist_ok=True)
            path.replace(spool.run / name)


def _new_shards(folder: Path, spool: Spool) -> list[Path]:
    """The files of shards whose index, the last of them, was not sent; half of one is sent anew."""
    new = {path.name.partition(".")[0] for path in _within(folder) if path.name.endswith(INDEX)}
    new -= {name.partition(".")[0] for name in spool.names("shards") if name.endswith(INDEX)}
    for name in spool.names("shards"):
        if name.partition(".")[0] in new:
            del spool.there[f"shards/{name}"]
    return [path for path in _within(folder) if path.name.partition(".")[0] in new]


def _within(folder: Path) -> list[Path]:
    """What lies in a folder, which need not be there."""
    return [folder / name for name in sorted(os.listdir(folder))] if folder.is_dir() else []


def put_aside(process: Path) -> None:
    """A spool of an earlier process of this number: it is no longer its own, and is adopted."""
    while process.exists():
        process.rename(process.with_name(f"{process.name}-left{time.time_ns()}"))


def locked_for_life(process: Path) -> BinaryIO:
    """The file whose lock says that a process has its spool."""
    process.parent.mkdir(parents=True, exist_ok=True)
    while True:
        lock = _lock_of(process).open("ab+")
        with suppress(OSError):  # a file system without locks: nobody adopts there
            if fcntl:
                fcntl.lockf(lock, fcntl.LOCK_EX)
        if os.fstat(lock.fileno()).st_nlink:  # not taken away before it was locked
            return lock
        lock.close()


def _lock_of(process: Path) -> Path:
    return process.with_name(f"{process.name}{LOCK}")


def _is_locked(file: BinaryIO) -> bool:
    """Whether this process has the lock now. It ends with the process, whatever becomes of its children."""
    if fcntl:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def forget(process: Path) -> None:
    """Take a spool away."""
    shutil.rmtree(process, ignore_errors=True)
    _lock_of(process).unlink(missing_ok=True)
