"""The spools of this process (`spool.py`): opened when a run folder at a URL is looked at, sent while it is filled, and
gone at the end."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO, TypeVar

from aas.photographs.store import Facts
from aas.store.addresses import Spooled, is_spooled
from aas.store.heartbeats import SILENT_SECONDS, is_gone, workers
from aas.store.leftovers import BEGUN, FILLING, adopt, forget, locked_for_life, put_aside
from aas.store.objects import AT_ONCE, NotSent, StoreError
from aas.store.spool import Spool, is_mine

EVERY_SECONDS = 5.0  # between two sendings, however long one takes: else more may wait here than ever goes

T = TypeVar("T")
log = logging.getLogger(__name__)
_open: dict[str, Spool] = {}
_locks: dict[str, BinaryIO] = {}


def spool_of(path: Path) -> Spool | None:
    """That of the run folder that a path lies in; None of an ordinary path."""
    return _spool(path) if is_spooled(path) else None


def _spool(path: Spooled) -> Spool:
    key = os.fspath(path.run)
    if key not in _open:
        _open[key] = _begun(path.run, key)
    return _open[key]


def _begun(run: Spooled, key: str) -> Spool:
    if not is_mine(run):  # a worker's, which reads
        return Spool(run)
    put_aside(run.parent)
    _locks[key] = locked_for_life(run.parent)
    try:
        return Spool(run)
    except BaseException:
        forget(run.parent)
        _locks.pop(key).close()
        raise


def names_at(folder: Path) -> set[str]:
    """Of what lies in a folder of a run at its URL; nothing of an ordinary folder, whose files say that."""
    return _spool(folder).names(folder.below) if is_spooled(folder) else set()


def content_at(path: Path) -> bytes | None:
    """The bytes of a file that lies at its URL only; None where there is none."""
    return _spool(path).read(path.below) if is_spooled(path) else None


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
    return _spool(path).there.get(path.below) if is_spooled(path) else None


def here(path: Path) -> Path:
    """A shard's file, fetched where it is not here."""
    return _spool(path).fetched(path.below) if is_spooled(path) else path


# -------------------------------------------------------------------------------------------- open, filled, closed


@contextmanager
def opened(folders: Iterable[object], filled: object = None, chunk: int = 0, num_chunks: int = 1) -> Iterator[None]:
    """Within, run folders at URLs among `folders` can be read, and `filled` can be written, by the process of that
    part; at the end all that it got is there.

    Raises StoreError where a store cannot be reached, NotSent where something could not be sent: it waits here;
    ValueError where another process fills the same part.
    """
    before, ended_by = set(_open), None
    try:
        for folder in folders:
            spool = spool_of(folder) if isinstance(folder, Path) else None
            if spool is not None and folder == filled:
                _fill(spool, chunk, num_chunks)
        yield
    except BaseException as error:
        ended_by = error
        raise
    finally:
        with ExitStack() as stack:
            for key in _open.keys() - before:
                stack.callback(_close, key, ended_by)


def opened_for(options: Any) -> AbstractContextManager[None]:
    """`opened` with the run folders that a command's options name; that of `out` is filled."""
    values = [getattr(options, field.name) for field in fields(options)]
    values += [one for value in values if isinstance(value, tuple) for one in value]
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


def _close(key: str, ended_by: BaseException | None) -> None:
    """Send what is left, unless the command was stopped or the store is the trouble; what is there needs no spool."""
    spool = _open.pop(key)
    waits = f"What is not there yet waits in {os.fspath(spool.run)}: the same command sends it."
    try:
        if ended_by is None or (isinstance(ended_by, Exception) and not isinstance(ended_by, StoreError)):
            _send(spool, is_last=True)
        if not spool.has_unsent():
            forget(spool.run.parent)
        elif isinstance(ended_by, StoreError):
            log.error("%s: %s", spool.run, waits)
    except StoreError as error:
        if ended_by is None:
            raise NotSent(f"{error}. {waits}") from error
        log.error("%s. %s", error, waits)
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
    is_in_trouble = False
    while not end.wait(EVERY_SECONDS):
        try:
            tell()
            _send(spool, with_items=with_items)
            is_in_trouble = False
        except OSError as error:
            if not is_in_trouble:
                log.warning("%s: results wait here, and it is tried again", error)
            is_in_trouble = True
