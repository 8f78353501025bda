"""Processes that were forked from another, and end with it."""

import os
import signal
import time
from threading import Thread

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))  # of a scheduler


def leave_to_parent() -> None:
    """In such a process: what a terminal or a scheduler sends to all processes is for the parent."""
    for number in (signal.SIGINT, *SIGNALS):
        signal.signal(number, signal.SIG_IGN)


def end_with(parent: int, *_: int) -> None:
    """This process ends soon after its parent: one that waits for a pipe that nobody reads would never."""
    leave_to_parent()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    Thread(target=watch, daemon=True).start()
