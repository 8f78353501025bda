"""Heavy libraries, imported in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """For imports, and for lists of very many items: what they make stays, but Python's collector looks through all of
    it again and again, which is a fifth of the time that torch, transformers and spaCy take. Afterwards it is as it
    was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
