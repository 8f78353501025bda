"""What libraries raise while a model is loaded, by any of a hundred classes, as one line that says what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from traceback import walk_tb

from aas.text import harmless

SHORT, LONGEST = 100, 300  # characters of a library's words


@contextmanager
def loading(what: str, name: object) -> Iterator[None]:
    """ValueError for whatever ends the loading of the `what` called `name`; what our own code says stays as it is."""
    try:
        yield
    except Exception as error:
        if is_ours(error):
            raise
        raise ValueError(f"The {what} {str(name)!r} cannot be loaded: {in_short(error)}{_advice(error)}") from error


def is_ours(error: BaseException) -> bool:
    """Whether it is a line that our own code wrote for people."""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    raised_in = frames[-1].f_globals.get("__name__", "") if frames else ""
    is_line = isinstance(error, (ValueError, FileNotFoundError, NotADirectoryError))
    is_line = is_line and not isinstance(error, (UnicodeError, json.JSONDecodeError))
    return _is_in_here(type(error).__module__) or (is_line and _is_in_here(raised_in))


def _is_in_here(module: str) -> bool:
    return module.split(".")[0] in ("aas", "difflmm")


def in_short(error: BaseException) -> str:
    """The first line of what it says, and the second of a short one, without a full stop; its class where that says
    more."""
    if isinstance(error, UnpicklingError):  # torch's words advise to load it all the same
        return "a file is damaged, or holds Python objects, which are never loaded"
    lines = [line.strip() for line in harmless(str(error)).splitlines() if line.strip()]
    text = " ".join(lines[: 2 if lines and len(lines[0]) < SHORT else 1])
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rsplit(' ', 1)[0]} …"
    says_all = isinstance(error, (ValueError, OSError, ImportError)) and text
    return text.rstrip(".:") if says_all else f"{type(error).__name__}: {text}".rstrip(".: ")


def _advice(error: BaseException) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return ". Memory does not suffice: try --dtype bfloat16, --quantize 4bit, or another --device."
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f". Install it: pip install {error.name.split('.')[0]}"
    return "."
