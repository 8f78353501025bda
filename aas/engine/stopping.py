"""SIGTERM and SIGUSR1, which a scheduler sends before it takes the machine away: the batch is finished, and an exit
code of its own says that the same command goes on from there."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from threading import current_thread, main_thread
from types import FrameType

from aas.forked import SIGNALS

CODE = 75  # EX_TEMPFAIL of sysexits.h: try again

log = logging.getLogger(__name__)


class Stop:
    """Whether this process was asked to stop. Where nothing is `in_hand`, or the second time, it ends at once."""

    def __init__(self) -> None:
        self.asked = self.in_hand = False
        self.process = os.getpid()

    def __call__(self) -> bool:
        """Whether the batch in hand is the last."""
        return self.asked

    def hear(self, number: int, _frame: FrameType | None = None) -> None:
        """The signal's handler."""
        if os.getpid() != self.process:  # a worker that was forked from here: the parent says when it ends
            return
        if self.asked or not self.in_hand:
            end()
        self.asked = True
        log.warning("%s: finishing the batch; a second one stops at once", signal.Signals(number).name)


@contextmanager
def stopping() -> Iterator[Stop]:
    """Within, the two signals are heard; not where the caller has handlers of its own, or is no main thread."""
    stop = Stop()
    mine = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    if current_thread() is not main_thread():
        mine = []
    for number in mine:
        signal.signal(number, stop.hear)
    try:
        yield stop
    finally:
        for number in () if stop.asked else mine:  # a second one may come while the process ends
            signal.signal(number, signal.SIG_DFL)


def end() -> None:
    """Results appear whole or not at all: whatever is being done may be cut off."""
    for child in active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(CODE)
