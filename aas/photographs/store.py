"""What a place that bytes come from can do: the file system here, the web, a bucket."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from aas import registry
from aas.photographs.address import scheme_of
from aas.photographs.limits import ImageError, check_bytes, max_bytes


class Facts(NamedTuple):
    """Of a file: its size in bytes, None where nobody says it; and what changes when its bytes do, "" where that cannot
    be told, None where it cannot be trusted yet."""

    size: int | None = None
    id: str | None = ""


class Store(ABC):
    """Files by their URLs (or paths). Whatever cannot be read is an ImageError that names it."""

    @abstractmethod
    def facts(self, url: str) -> Facts:
        """ImageError where there is no such file."""

    @abstractmethod
    def opened(self, url: str) -> BinaryIO:
        """For reading, at any place; errors are those of the library behind it."""

    @abstractmethod
    def matching(self, pattern: str) -> list[str]:
        """The files of a pattern (*, ?, [a-z], **), sorted."""

    @abstractmethod
    def below(self, url: str) -> Iterator[tuple[str, Facts]]:
        """Of the files in a folder, and below it, their paths relative to it. Of a file itself only: ("", its
        facts)."""

    @abstractmethod
    def whole(self, url: str) -> bytes:
        """At most `max_bytes()` of it; ImageError for more."""

    def part(self, url: str, start: int, n_bytes: int) -> bytes:
        """Bytes from `start` on, as far as there are such."""
        with self.opened(url) as file:
            file.seek(start)
            return file.read(n_bytes)


def store_of(url: str) -> Store:
    """By its scheme; that of this machine for a path. ImageError for a scheme that is not known here."""
    scheme = scheme_of(url)
    if scheme and scheme not in registry.PHOTOGRAPH_STORES:
        if scheme in ("file", "local"):
            raise ImageError(f"{url}: for a file of this machine give its path")
        known = ", ".join(f"{name}://" for name in registry.PHOTOGRAPH_STORES)
        raise ImageError(f"{url}: photographs are taken from {known}")
    store: Store = registry.load({"": "aas.photographs.local:Local"} | registry.PHOTOGRAPH_STORES, scheme, "scheme")()
    return store


def read_at_most(file: BinaryIO, url: str) -> bytes:
    """All of an open file, if it is not too large."""
    content = file.read(max_bytes() + 1)
    check_bytes(len(content), url)
    return content
