"""The spools of this process (`spool.py`): opened when a run folder at a URL is looked at, sent while it is filled, and
gone at the end; and what killed processes of this machine left in theirs."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import fields
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO, TypeVar

from aas.photographs.store import Facts
from aas.store.addresses import Spooled
from aas.store.atomic import write_bytes
from aas.store.description import read_description
from aas.store.heartbeats import SILENT_SECONDS, is_gone, workers
from aas.store.objects import AT_ONCE, NotSent, StoreError
from aas.store.spool import LOGS, Spool, is_mine, merged

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

EVERY_SECONDS = 5.0  # what is new is sent
SHARE = 0.1  # of the time, at most, goes into sending while a run goes on
FILLING, BEGUN = "filling", "begun"  # beside the run: it is filled here; its run.json was sent

T = TypeVar("T")
log = logging.getLogger(__name__)
_open: dict[str, Spool] = {}
_locks: dict[str, BinaryIO] = {}


def spool_of(path: Path) -> Spool | None:
    """That of the run folder that a path lies in; None of an ordinary path."""
    if not isinstance(path, Spooled):
        return None
    key = os.fspath(path.run)
    if key not in _open:
        _open[key] = _begun(path.run, key)
    return _open[key]


def _begun(run: Spooled, key: str) -> Spool:
    process = run.parent
    if not is_mine(run):  # a worker's, which reads
        return Spool(run)
    while process.exists():  # it was left by one of the same number
        process.rename(process.with_name(f"{process.name}-left{time.time_ns()}"))
    process.parent.mkdir(parents=True, exist_ok=True)
    _locks[key] = _lock_of(process).open("ab+")
    _is_locked(_locks[key])
    try:
        return Spool(run)
    except BaseException:
        _forget(process)
        _locks.pop(key).close()
        raise


def names_at(folder: Path) -> set[str]:
    """Of what lies in a folder of a run at its URL; nothing of an ordinary folder, whose files say that."""
    spool = spool_of(folder)
    return set() if spool is None or not isinstance(folder, Spooled) else spool.names(folder.below)


def content_at(path: Path) -> bytes | None:
    """The bytes of a file that lies at its URL only; None where there is none."""
    spool = spool_of(path)
    return None if spool is None or not isinstance(path, Spooled) else spool.read(path.below)


def ahead(entries: Iterable[T], path_of: Callable[[T], Any] = lambda path: path) -> Iterator[T]:
    """Entries about items of one run, by their paths: what lies at its URL is fetched before it is read, some at
    once."""
    left = iter(entries)
    while some := list(islice(left, AT_ONCE)):
        paths = [path_of(entry) for entry in some]
        if (spool := spool_of(paths[0])) is not None:
            spool.read_ahead(path.below for path in paths)
        yield from some


def bring(folder: Path, names: Iterable[str]) -> None:
    """Items of a run that lie at its URL only: their files are here, to go into shards."""
    if (spool := spool_of(folder)) is not None:
        spool.bring(names)


def facts_at(path: Path) -> Facts | None:
    """What the store says of a file that lies there."""
    spool = spool_of(path)
    return None if spool is None or not isinstance(path, Spooled) else spool.there.get(path.below)


def here(path: Path) -> Path:
    """A shard's file, fetched where it is not here."""
    spool = spool_of(path)
    return path if spool is None or not isinstance(path, Spooled) else spool.fetched(path.below)


# -------------------------------------------------------------------------------------------- open, filled, closed


@contextmanager
def opened(folders: Iterable[object], filled: object = None, chunk: int = 0, num_chunks: int = 1) -> Iterator[None]:
    """Within, run folders at URLs among `folders` can be read, and `filled` can be written, by the process of that
    part; at the end all that it got is there.

    Raises StoreError where a store cannot be reached, NotSent where something could not be sent: it waits here;
    ValueError where another process fills the same part.
    """
    before, is_well, is_hurried = set(_open), False, False
    try:
        for folder in folders:
            spool = spool_of(folder) if isinstance(folder, Path) else None
            if spool is not None and folder == filled:
                _fill(spool, chunk, num_chunks)
        yield
        is_well = True
    except BaseException as error:
        is_hurried = isinstance(error, StoreError) or not isinstance(error, Exception)
        raise
    finally:
        for key in _open.keys() - before:
            _close(key, is_well, is_hurried)


def opened_for(options: Any) -> AbstractContextManager[None]:
    """`opened` with the run folders that a command's options name; that of `out` is filled."""
    values = [getattr(options, field.name) for field in fields(options)]
    chunk = getattr(options, "chunk", None)
    part = (0, 1) if chunk is None else (chunk.index, chunk.count)
    return opened(values, getattr(options, "out", None), *part)


def _fill(spool: Spool, chunk: int, num_chunks: int) -> None:
    for worker in workers(spool.run):
        is_apart = num_chunks > 1 and worker.num_chunks == num_chunks and worker.chunk != chunk
        is_silent = time.time() - worker.told > SILENT_SECONDS or is_gone(worker)
        if not is_apart and not is_silent and worker.pid != os.getpid():
            raise ValueError(
                f"{spool.run} is being filled by process {worker.pid} of {worker.host}, part {worker.chunk} of "
                f"{worker.num_chunks}, and no lock holds in a store: wait for it, or {SILENT_SECONDS} s where it was "
                "killed; or give each process a part, --num-chunks and --chunk-idx."
            )
    (spool.run.parent / FILLING).touch()
    adopt(spool)
    spool.begin_logs(num_chunks > 1)


def _close(key: str, is_well: bool, is_hurried: bool) -> None:
    """Send what is left, unless the command was stopped or the store is the trouble; what is there needs no spool."""
    spool = _open.pop(key)
    try:
        if not is_hurried:
            _send(spool, is_last=True)
        if not spool.has_unsent():
            _forget(spool.run.parent)
    except StoreError as error:
        line = f"{error}. What is not there yet waits in {os.fspath(spool.run)}: the same command sends it."
        if is_well:
            raise NotSent(line) from error
        log.error("%s", line)
    finally:
        _locks.pop(key).close()


def _send(spool: Spool, **how: bool) -> None:
    spool.send(**how)
    if "run.json" in spool.there:
        (spool.run.parent / BEGUN).touch()


@contextmanager
def sending(run: Path, tell: Callable[[], None], with_items: bool = True) -> Iterator[None]:
    """Within, what is finished in a run folder at a URL is sent every few seconds; `tell` is called before. Raises
    StoreError at once where nothing can be written there; later trouble is waited for."""
    spool = spool_of(run)
    if spool is None:
        yield
        return
    tell()
    _send(spool, with_items=with_items)
    end = Event()
    thread = Thread(target=_send_until, args=(end, spool, tell, with_items), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def _send_until(end: Event, spool: Spool, tell: Callable[[], None], with_items: bool) -> None:
    pause, is_in_trouble = EVERY_SECONDS, False
    while not end.wait(pause):
        start = time.monotonic()
        try:
            tell()
            _send(spool, with_items=with_items)
            is_in_trouble = False
        except OSError as error:
            if not is_in_trouble:
                log.warning("%s: results wait here, and it is tried again", error)
            is_in_trouble = True
        pause = max(EVERY_SECONDS, (time.monotonic() - start) / SHARE)


# --------------------------------------------------------------------------------------- what killed processes left


def adopt(spool: Spool) -> None:
    """Take over what killed processes of this machine finished of the same run and could not send."""
    mine = spool.run.parent
    for left in sorted(path for path in mine.parent.iterdir() if path.is_dir() and path != mine):
        with _lock_of(left).open("ab+") as lock:  # for no other to take it at the same time
            if _is_locked(lock) and _may_go(left, spool):
                _forget(left)


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
    items = [path for path in theirs.iterdir() if path.is_file() and not path.name.startswith(".")]
    for path in (*items, *_new_shards(theirs / "shards", spool)):
        name = path.relative_to(theirs).as_posix()
        if name not in (*LOGS, "run.json") and name not in spool.there:
            (spool.run / name).parent.mkdir(exist_ok=True)
            path.replace(spool.run / name)


def _new_shards(folder: Path, spool: Spool) -> list[Path]:
    """The files of shards whose index, the last of them, was not sent; half of one is sent anew."""
    new = {path.name.partition(".")[0] for path in folder.glob("*.index.jsonl")}
    new -= {name.partition(".")[0] for name in spool.names("shards") if name.endswith(".index.jsonl")}
    for name in spool.names("shards"):
        if name.partition(".")[0] in new:
            del spool.there[f"shards/{name}"]
    return [path for path in folder.glob("[0-9]*") if path.name.partition(".")[0] in new]


def _lock_of(process: Path) -> Path:
    return process.with_name(f"{process.name}.lock")


def _is_locked(file: BinaryIO) -> bool:
    """Whether this process has the lock now. It ends with the process, whatever becomes of its children."""
    if fcntl:
        with suppress(OSError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def _forget(process: Path) -> None:
    shutil.rmtree(process, ignore_errors=True)
    _lock_of(process).unlink(missing_ok=True)
