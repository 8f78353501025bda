"""Run folders at URLs: the path under which one is filled and read here."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from aas.store.keys import is_cut, quoted, unquoted

MARK = "%3A%2F%2F"  # `://` in the name of a folder
LOCAL = "file://"

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # of this system: `Path` itself cannot be inherited from before Python 3.12


class Spooled(_Path):
    """A path in the spool of a run folder that lies at a URL (`spool.py`).

    It opens like any other path, and is shown, in messages and in run.json, as the URL. The spool's folder says which:
    CACHE/URL/PROCESS/NAME, where NAME is what the URL ends with. So it means the same in every process.
    """

    __slots__ = ()

    def __fspath__(self) -> str:
        return super().__str__()

    def __str__(self) -> str:
        place = self._place()
        return super().__str__() if place is None else "/".join([self.url, *self.parts[place + 3 :]])

    @property
    def url(self) -> str:
        """Of the run folder."""
        return unquoted(self.parts[self._place() or 0])

    @property
    def run(self) -> "Spooled":
        """The run folder that it lies in."""
        return type(self)(*self.parts[: (self._place() or 0) + 3])

    @property
    def below(self) -> str:
        """Its name relative to the run folder."""
        return "/".join(self.parts[(self._place() or 0) + 3 :])

    def _place(self) -> int | None:
        """Of the folder that is called as the URL, among the path's parts; None of one above a run folder."""
        found = next((i for i, part in enumerate(self.parts) if MARK in part), None)
        return None if found is None or len(self.parts) < found + 3 else found


def is_spooled(path: Path) -> TypeGuard[Spooled]:
    """Whether it lies in a run folder at a URL: not where an absolute path was put behind one."""
    return isinstance(path, Spooled) and path._place() is not None


def folder_at(place: str | Path) -> Path:
    """The run folder at a URL or a path; nothing is looked at."""
    if isinstance(place, Path) or "://" not in place:
        return Path(place) if isinstance(place, str) else place
    if place.startswith(LOCAL):
        return Path(place.removeprefix(LOCAL))
    url = place.rstrip("/")
    return Spooled(cache(), quoted(url), this_process(), quoted(url.rpartition("/")[2]) or "_")


def this_process() -> str:
    """What its spools are called."""
    return f"{socket.gethostname()}-{os.getpid()}"


OF_RUN: dict[str, Any] = {"parser": folder_at, "metavar": "PLACE"}  # of an option or argument that names one


def cache() -> Path:
    """The folder of all spools of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "aas", "runs").absolute()


def check_length(folder: Spooled) -> None:
    """ValueError for a URL whose folder would not say it."""
    if any(is_cut(part) for part in folder.parts):
        raise ValueError("the URL of a run folder is too long: give it a shorter one.")
