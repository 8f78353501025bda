"""What lies in a folder and below it, each folder listed once and no file looked at: there may be a million."""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

Entry = os.DirEntry[str]


def below(folder: Path, outside: Iterable[Path] = ()) -> Iterator[tuple[str, Entry]]:
    """Everything below a folder by its path relative to it, in the order of such paths' parts, folders too.

    What is hidden, or inside the folders `outside`, is left out, and what lies in it; linked folders are not entered,
    nor those that may not be read.
    """
    skipped = [os.path.realpath(path) for path in outside]
    waiting = [_listed(os.fspath(folder), "", skipped)]
    while waiting:
        for name, entry in waiting[-1]:
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(_listed(entry.path, f"{name}/", skipped))
                break
        else:
            waiting.pop()


def _listed(folder: str, before: str, skipped: list[str]) -> Iterator[tuple[str, Entry]]:
    """The entries of a folder, by relative path; only links can lie elsewhere than their folder does."""
    if _is_inside(os.path.realpath(folder), skipped):
        return
    entries = list[Entry]()
    with suppress(PermissionError), os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    for entry in sorted(entries, key=lambda entry: entry.name):
        if not (entry.is_symlink() and _is_inside(os.path.realpath(entry.path), skipped)):
            yield f"{before}{entry.name}", entry


def _is_inside(place: str, folders: list[str]) -> bool:
    return any(f"{place}{os.sep}".startswith(f"{folder}{os.sep}") for folder in folders)


def is_file(entry: Entry) -> bool:
    """Whether it is one, or a link to one; no pipe, no device, no loop of links."""
    with suppress(OSError):
        return entry.is_file()
    return False
