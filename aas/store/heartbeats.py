"""What each process that fills a run folder says of itself while it does, for `aas status` on any machine."""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from aas.store.atomic import write_text

WORKERS = ".workers"  # the folder
EVERY_SECONDS = 5
SILENT_SECONDS = 60  # later it is not counted on


@dataclass
class Worker:
    """A process: where it runs, its part of the items, what it has done since it began. Times in seconds since 1970."""

    host: str
    pid: int
    chunk: int
    num_chunks: int
    began: float
    told: float
    done: int = 0
    failed: int = 0

    @property
    def images_per_second(self) -> float:
        """Since it began to compute; 0 of one that is silent."""
        silent = time.time() - self.told > SILENT_SECONDS
        return 0.0 if silent else (self.done + self.failed) / max(time.time() - self.began, 1e-3)


class Heartbeat:
    """This process's own word: a file that is gone when it ends well."""

    def __init__(self, folder: Path, chunk: int, num_chunks: int):
        host, now = socket.gethostname(), time.time()
        self.folder = folder / WORKERS
        self.worker = Worker(host, os.getpid(), chunk, num_chunks, now, 0.0)
        self.path = self.folder / f"{host}-{os.getpid()}.json"

    def __enter__(self) -> "Heartbeat":
        return self

    def count(self, failed: bool) -> None:
        """One item more."""
        self.worker.failed += failed
        self.worker.done += not failed
        self.tell()

    def tell(self) -> None:
        """Say that it goes on, where that was not said just now, and the run folder is there."""
        if time.time() - self.worker.told > EVERY_SECONDS and self.folder.parent.is_dir():
            self.worker.told = time.time()
            write_text(self.path, json.dumps(asdict(self.worker)) + "\n")

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            self.folder.rmdir()  # where it was the last


def workers(folder: Path) -> list[Worker]:
    """Those that fill a run folder, or were killed while they did."""
    return [worker for _, worker in _read(folder / WORKERS)]


def forget_killed(folder: Path) -> None:
    """Take away the words of processes that were killed."""
    with suppress(OSError):  # a folder that is done may be read-only by now
        for path, worker in _read(folder / WORKERS):
            if is_gone(worker):
                path.unlink(missing_ok=True)
        (folder / WORKERS).rmdir()  # where it is empty


def _read(folder: Path) -> list[tuple[Path, Worker]]:
    found = []
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    for path in (folder / name for name in names if name.endswith(".json") and not name.startswith(".")):
        with suppress(OSError, ValueError, TypeError):  # gone by now, or damaged
            found.append((path, Worker(**json.loads(path.read_text(encoding="utf-8")))))
    return found


def is_gone(worker: Worker) -> bool:
    """Whether it was killed; of other machines' processes that is known by an hour's silence only."""
    if worker.host != socket.gethostname():
        return time.time() - worker.told > 3600
    try:
        os.kill(worker.pid, 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False
