"""Tar shards, as webdataset has them: photographs are read where they lie, nothing is unpacked."""

import logging
import tarfile
from collections.abc import Collection, Generator, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from aas.photographs.limits import LIST_SECONDS, ImageError, patiently
from aas.photographs.member import Member
from aas.photographs.store import store_of
from aas.text import harmless

MAX_HEADER_BYTES = 1 << 20  # of one entry: long names and the like
BLOCK = tarfile.BLOCKSIZE

log = logging.getLogger(__name__)


class Tar:
    """A tar without compression, on this machine or behind a URL."""

    def members(self, place: str, suffixes: Collection[str] | None = None) -> list[Member]:
        """Its files with these suffixes (or all), hidden ones left out; of several of one name the last, as tar has it.

        What is damaged ends the list: it is the last member, with the trouble. ImageError for what is no tar.
        """
        facts = store_of(place).facts(place)
        found: dict[str, Member] = {}
        twice = []
        entries = patiently(lambda: list(_entries(place, facts.size)), place, "read", LIST_SECONDS)
        for name, start, size, trouble in entries:
            if not trouble and not _is_wanted(name, suffixes):
                continue
            if name in found:
                twice.append(name)
            stamp = None if facts.id is None else f"{facts.id} {start}" if facts.id else ""
            found[name] = Member(name, "tar", place, size, stamp, (start,), trouble)
        if twice:
            names = f"{len(twice)}, as {harmless(twice[0])}"
            log.warning("%s: names that are there twice (%s): the last of each is taken", place, names)
        return list(found.values())

    def read(self, member: Member) -> bytes:
        """Its bytes; ImageError where they are not all there."""
        assert member.size is not None
        content = store_of(member.place).part(member.place, member.at[0], member.size)
        if len(content) < member.size:
            raise ImageError(f"{member}: the shard is cut off in it, after {len(content)} of {member.size} bytes")
        return content


def _is_wanted(name: str, suffixes: Collection[str] | None) -> bool:
    path = PurePosixPath(name)
    is_hidden = any(part.startswith(".") and part != ".." for part in path.parts)
    return suffixes is None or (path.suffix.lower() in suffixes and not is_hidden)


def _entries(place: str, n_bytes: int | None) -> Iterator[tuple[str, int, int, str]]:
    """Name, first byte and size of each file; the last may be the trouble that ended the list, by the shard's name."""
    with store_of(place).opened(place) as file:
        tar = _opened(_Headers(file, n_bytes), place)
        trouble = (yield from _files(tar)) or _what_follows(file, tar.offset)
    if trouble:
        said = f"{place}: damaged at byte {tar.offset} ({trouble}): what comes before is taken; get the file anew"
        yield PurePosixPath(place).name, 0, 0, said


def _opened(file: Any, place: str) -> Any:
    try:
        return tarfile.TarFile(fileobj=file, errors="surrogateescape")
    except tarfile.TarError as error:
        raise ImageError(
            f"{place}: no tar file ({error}); of a compressed one, unpack it first (gunzip): photographs in it cannot "
            "be reached one by one"
        ) from error


def _files(tar: Any) -> Generator[tuple[str, int, int, str], None, str]:
    """Returns what ends them before the end."""
    before = -1
    try:
        while (entry := tar.next()) is not None:
            tar.members.clear()  # which would grow with the shard
            if tar.offset <= before:
                return "it leads back"
            before = tar.offset
            if entry.isreg() and not entry.issparse():
                yield entry.name.lstrip("/").removeprefix("./"), entry.offset_data, entry.size, ""
    except tarfile.TarError as error:
        return str(error)
    return ""


def _what_follows(file: BinaryIO, offset: int) -> str:
    """What is wrong behind the last entry, where a tar has blocks of zeros."""
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        return "it has no end"
    return "no header" if any(block) else ""


class _Headers:
    """A file of `n_bytes` of which no more than a header is read at once, and nothing outside, whatever the header
    before it says."""

    def __init__(self, file: BinaryIO, n_bytes: int | None):
        self.tell, self._seek, self._read, self._n_bytes = file.tell, file.seek, file.read, n_bytes

    def seek(self, place: int) -> int:
        if place < 0 or (self._n_bytes is not None and place > self._n_bytes):
            raise tarfile.ReadError("unexpected end of data")
        return self._seek(place)

    def read(self, n_bytes: int = -1) -> Any:
        if not 0 <= n_bytes <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header of absurd size")
        return self._read(n_bytes)
