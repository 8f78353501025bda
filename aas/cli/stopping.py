"""Ctrl-C ends a command within about a second, with one line, whatever it is waiting for."""

import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import active_children
from threading import Timer, current_thread, main_thread
from types import FrameType

GRACE_SECONDS = 1.0  # for what is being written, until workers and libraries are waited for no longer
CODE = 130  # as shells have it: 128 + SIGINT
LINE = "stopped. What is done stays; where a command fills a folder, the same command goes on from here."


def stop_at_ctrl_c() -> Callable[[], None]:
    """From now on Ctrl-C does so; returns what undoes it. Nothing is changed where the caller has a handler."""
    former = signal.getsignal(signal.SIGINT)
    if former is not signal.default_int_handler or current_thread() is not main_thread():
        return lambda: None
    mine, asked = os.getpid(), list[Timer]()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if os.getpid() == mine:  # not a worker that was forked from here
            if asked:
                _end()
            print(f"\naas: {LINE}", file=sys.stderr, flush=True)
            # Libraries make other errors of it, and hooks ignore it: none of that is told beside the line.
            sys.excepthook, sys.unraisablehook = _say_nothing, _say_nothing
            asked.append(Timer(GRACE_SECONDS, _end))
            asked[0].daemon = True
            asked[0].start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)
    return lambda: _undo(former, asked)


def _say_nothing(*_: object) -> None:
    """For the hooks of errors."""


def _undo(former: object, asked: list[Timer]) -> None:
    if asked:
        _end()  # an interpreter that has torch in it takes seconds to take itself apart
    signal.signal(signal.SIGINT, former)  # type: ignore[arg-type]


def _end() -> None:
    """Results appear whole or not at all: whatever is being done may be cut off."""
    for child in active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(CODE)
