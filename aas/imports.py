"""Heavy libraries, imported in less time; and a process of our own, in which they cost nothing later."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_is_ours = False  # this process


@contextmanager
def collector_paused() -> Iterator[None]:
    """For imports, and for lists of very many items: what they make stays, but Python's collector looks through all of
    it again and again, which is a fifth of the time that torch, transformers and spaCy take. Afterwards it is as it
    was, but what is there counts as old at once, where it would be looked through twice before it does; in a process of
    our own it is not looked through again, which takes half a second."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _is_ours:
            gc.freeze()
        elif not gc.get_freeze_count():  # what somebody else has frozen stays so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_on:
            gc.enable()


def own_process() -> None:
    """Says that this process is ours alone: there is nobody whose cycles would be kept with what is imported.

    When it ends nothing is looked through either: an interpreter does so with all that torch and transformers made, to
    free memory that is the system's a moment later. What lies in cycles then is not finalised: files are closed where
    they are written, not there.
    """
    global _is_ours
    _is_ours = True
    atexit.register(gc.freeze)
