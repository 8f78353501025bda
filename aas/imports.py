"""Heavy libraries, imported in less time; and a process that ends in less."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """For imports, and for lists of very many items: what they make stays, but Python's collector looks through all of
    it again and again, which is a fifth of the time that torch, transformers and spaCy take. Afterwards it is as it
    was, but what is there counts as old at once, where it would be looked through twice before it does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what somebody else has frozen stays so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_on:
            gc.enable()


def end_quickly() -> None:
    """For a process that is ours alone: an interpreter that ends looks through all that torch and transformers made, to
    free memory that is the system's a moment later. What lies in cycles then is not finalised: files are closed where
    they are written, not there."""
    atexit.register(gc.freeze)
