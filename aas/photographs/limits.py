"""How much is read of a photograph, how long it is waited for, and how often it is tried again."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException
from threading import Thread
from typing import TypeVar
from urllib.error import HTTPError

from aas.loading import in_short

MAX_MEGABYTES = 100
TIMEOUT_SECONDS = 30  # of silence
READ_SECONDS, LIST_SECONDS = 300, 3600  # for one photograph, for the list of a place
WAITS = (0.5, 2.0)  # seconds before it is tried again
PASSING = (408, 425, 429)  # statuses of a web server that may pass, as those from 500 on
T = TypeVar("T")


class ImageError(ValueError):
    """The image cannot be used; the message names it and says what to do."""


def max_bytes() -> int:
    """Of one photograph."""
    return MAX_MEGABYTES * 1_000_000


def check_bytes(n_bytes: int | None, name: str) -> None:
    """ImageError for more bytes than are read; None: not known yet."""
    if n_bytes is not None and n_bytes > max_bytes():
        raise ImageError(f"{name}: larger than {MAX_MEGABYTES} MB; download and shrink it first")


def patiently(call: Callable[[], T], name: str, verb: str = "read", seconds: float | None = None) -> T:
    """What `call` gives, tried three times where the trouble may pass; ImageError, which names the photograph, for
    whatever else it raises, and where it takes longer than `seconds` (READ_SECONDS if None)."""
    for wait in (*WAITS, None):
        try:
            return _within(READ_SECONDS if seconds is None else seconds, call)
        except ImageError:
            raise
        except Exception as error:  # of any library behind a URL
            if wait is None or not _may_pass(error):
                tried = f", tried {len(WAITS) + 1} times" if wait is None else ""
                raise ImageError(f"{name}: cannot be {verb} ({_words(error)}{tried})") from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: Exception) -> bool:
    if isinstance(error, HTTPError):
        return error.code in PASSING or error.code >= 500
    final = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError,
             NotImplementedError)  # fmt: skip
    return isinstance(error, HTTPException) or not isinstance(error, final)


def _words(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, TimeoutError):
        return "timed out"
    return in_short(error)


def _within(seconds: float, call: Callable[[], T]) -> T:
    """TimeoutError where `call` takes longer: it is left to itself in a thread that nobody waits for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result(seconds)
