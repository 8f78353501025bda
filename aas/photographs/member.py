"""One photograph that is no file of a folder."""

import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from aas import registry
from aas.photographs.address import is_url, scheme_of
from aas.photographs.limits import ImageError, check_bytes
from aas.photographs.store import Facts, store_of


@dataclass(frozen=True)
class Member:
    """A file behind the URL `name`, or, with `kind` "tar" or "parquet", what is called `name` in the shard `place`, a
    path or a URL.

    As text it is its address, of which `member_of` makes it again: `s3://bucket/a.jpg`, `tar://a.jpg::shards/0.tar`.
    What a list of the place says beside: its size in bytes and its id (`Facts`), where it lies in the shard (`at`), or
    the `trouble` for which it cannot be read.
    """

    name: str
    kind: str = ""
    place: str = ""
    size: int | None = field(default=None, compare=False)
    id: str | None = field(default="", compare=False)
    at: tuple[int, ...] = field(default=(), compare=False)
    trouble: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.kind}://{self.name}::{self.place}" if self.kind else self.name

    def is_file(self) -> bool:
        """Whether it may be read, as far as is known."""
        return not self.trouble

    def stamp(self) -> list[Any] | None:
        """What changes when its bytes do, as far as the place says so; None where that cannot be trusted yet."""
        return None if self.id is None else [self.size, self.id]

    def open(self, _mode: str = "rb") -> io.BytesIO:
        """Its bytes as a file, as `pathlib.Path` has it; they are kept for the next `read`."""
        content = _content(self)
        _kept.clear()
        _kept[self, self.id] = content
        return io.BytesIO(content)

    def read(self) -> bytes:
        """Its bytes; ImageError, which names it, for what cannot be read."""
        content = _kept.get((self, self.id))
        if content is not None and not self.id:  # nobody says whether it is still the same
            _kept.clear()
        return _content(self) if content is None else content


File: TypeAlias = Path | Member  # of a photograph, wherever it lies
_kept: dict[tuple[Member, str | None], bytes] = {}  # the last that was read for its digest: next it is decoded


def _content(member: Member) -> bytes:
    if member.trouble:
        raise ImageError(member.trouble)
    check_bytes(member.size, str(member))
    if not member.kind:
        return store_of(member.name).whole(member.name)
    shard = registry.load(registry.PHOTOGRAPH_SHARDS, member.kind, "kind of shard")()
    found = member if member.at else _in_shard(member)
    check_bytes(found.size, str(found))
    content: bytes = shard.read(found)
    return content


def _in_shard(member: Member) -> Member:
    """Of one that is known by its address only what the shard's list says of it."""
    facts = store_of(member.place).facts(member.place)
    found = _listed(member.kind, member.place, facts).get(member.name)
    if found is None:
        raise ImageError(f"{member}: no such photograph in the shard")
    return found


@lru_cache(maxsize=4)
def _listed(kind: str, place: str, _facts: Facts) -> dict[str, Member]:
    """Of a shard that had these facts."""
    shard = registry.load(registry.PHOTOGRAPH_SHARDS, kind, "kind of shard")()
    return {member.name: member for member in shard.members(place)}


def member_of(address: str) -> Member:
    """What an address (`is_url`) stands for; nothing is read."""
    scheme = scheme_of(address)
    if scheme in registry.PHOTOGRAPH_SHARDS:
        name, _, place = address[len(scheme) + 3 :].rpartition("::")
        return Member(name, scheme, place)
    return Member(address)


def file_of(text: str) -> File:
    """What a URL or a path stands for; nothing is read."""
    return member_of(text) if is_url(text) else Path(text)
