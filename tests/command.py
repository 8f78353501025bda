"""`aas` run in this process, and in processes that are forked from it."""

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.forkserver import ForkServer, _forkserver
from types import TracebackType
from typing import Self
from unittest.mock import patch

import typer
from typer.testing import CliRunner

from aas.cli import app


@cache
def commands() -> object:
    """Of `app`, made once: to make them takes longer than most commands. A name of a registry stays what it was first
    (`aas.cli.options.lazy_group`): tests that give one to something else call `CliRunner` themselves."""
    return typer.main.get_command(app)


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and output; what is no mistake of the user's is raised."""
    with patch("typer.testing._get_command", return_value=commands()):
        result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def done(*arguments: object) -> str:
    """The output of a command that nothing is wrong with."""
    code, said = run(*arguments)
    assert code == 0, said
    return said


class Forked:
    """`made` called in a process that leads a group of its own, as one that a shell starts. It has imported what this
    one has, which takes programs seconds."""

    def __init__(self, made: Callable[[], object]):
        self.files = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed by `__exit__`)
        self.process = get_context("fork").Process(target=self._call, args=(made,))
        self.process.start()

    def _call(self, made: Callable[[], object]) -> None:
        os.setsid()
        for name, number, file in zip(("stdout", "stderr"), (1, 2), self.files, strict=True):
            os.dup2(file.fileno(), number)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", buffering=1, closefd=False))
        # What a program has, where pytest has its own.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.excepthook, sys.unraisablehook = sys.__excepthook__, sys.__unraisablehook__
        threading.excepthook = threading.__excepthook__
        vars(_forkserver).update(vars(ForkServer()))  # the one that serves its parent would not serve it
        made()

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def code(self) -> int | None:
        """Its exit code, None while it runs; of one that was killed the signal's number, negative."""
        return self.process.exitcode

    def ended(self, seconds: float = 120) -> tuple[int | None, str, str]:
        """Its exit code after at most so many seconds, what it wrote to stdout, and to stderr."""
        until = time.monotonic() + seconds
        while self.code() is None and time.monotonic() < until:
            time.sleep(0.01)
        for file in self.files:
            file.seek(0)
        stdout, stderr = (file.read().decode() for file in self.files)
        return self.code(), stdout, stderr

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.code() is None:
            with suppress(ProcessLookupError):  # it has no group yet
                os.killpg(self.pid, signal.SIGKILL)
            self.process.kill()
        self.process.join()
        for file in self.files:
            file.close()


def program(*arguments: object, anew: bool = False) -> Forked:
    """`aas` with these arguments; `anew`: by `python -m aas.cli`, which imports everything itself."""
    words = list(map(str, arguments))
    if anew:
        return Forked(partial(os.execv, sys.executable, [sys.executable, "-m", "aas.cli", *words]))
    return Forked(partial(app, words, prog_name="aas"))
