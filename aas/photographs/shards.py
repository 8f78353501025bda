"""What lies at a place that is no folder of this machine: files of a bucket, members of tar and parquet shards."""

import os
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from aas import registry
from aas.photographs.address import Address, is_pattern, path_of, scheme_of
from aas.photographs.limits import ImageError
from aas.photographs.member import Member, member_of
from aas.photographs.store import store_of

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_shard(place: str | Path) -> bool:
    """Whether the name of a file, or a pattern of names, is one of files that hold many photographs."""
    name = path_of(str(place)).lower()
    return PurePosixPath(name).suffix[1:] in registry.PHOTOGRAPH_SHARDS or name.endswith(COMPRESSED)


def is_elsewhere(images: Path | Address) -> bool:
    """Whether photographs are to be had of it as `Photographs`: no folder, and no list of them."""
    return isinstance(images, Address) or (is_shard(images) and not images.is_dir())


class Photographs:
    """The photographs at a URL or in shards, by their names: `photographs / name`, as in a folder.

    `images`: the URL of a folder or of a photograph; the path or URL of a shard, or a pattern of such. A name is the
    path relative to the folder; in a shard that of the member, behind that of the shard where a pattern may find
    several. `suffixes` of the files that count. ImageError where nothing can be had of it.
    """

    def __init__(self, images: Path | Address, suffixes: Collection[str]):
        self.images, self.suffixes = str(images), suffixes

    def __str__(self) -> str:
        return self.images

    def __truediv__(self, name: str | Path) -> Member:
        """The one of that name, or of that name without suffix; one that cannot be read where there is none."""
        key = str(name)
        found = self.members.get(key) or self._by_stem.get(key)
        return found or Member(key, trouble=f"{key}: no such photograph in {self.images}")

    @cached_property
    def members(self) -> dict[str, Member]:
        """Name -> photograph, in the order of the names. What of a shard cannot be read is a member of its own."""
        if scheme_of(self.images) in registry.PHOTOGRAPH_SHARDS:  # of one in a shard
            member = member_of(self.images)
            return {member.name: member}
        found = dict(self._shards() if is_shard(self.images) else self._files())
        return {name: found[name] for name in sorted(found)}

    @cached_property
    def _by_stem(self) -> dict[str, Member]:
        return {str(PurePosixPath(name).with_suffix("")): member for name, member in reversed(self.members.items())}

    def _files(self) -> Iterator[tuple[str, Member]]:
        store, folder = store_of(self.images), self.images.rstrip("/")
        for name, facts in store.below(self.images):
            path = PurePosixPath(name)
            is_hidden = any(part.startswith(".") for part in path.parts)
            if not name:
                yield PurePosixPath(path_of(folder)).name, Member(self.images, "", "", *facts)
            elif path.suffix.lower() in self.suffixes and not is_hidden:
                yield name, Member(f"{folder}/{name}", "", "", *facts)

    def _shards(self) -> Iterator[tuple[str, Member]]:
        if path_of(self.images).lower().endswith(COMPRESSED):
            raise ImageError(f"{self.images}: photographs in a compressed tar cannot be reached one by one: unpack it")
        shards = self._places()
        for place in shards:
            prefix = "" if place == self.images else f"{place.removeprefix(self._base())}/"
            try:
                found = _members(place if scheme_of(place) else os.path.abspath(place), self.suffixes)
            except ImageError as error:
                if len(shards) == 1:
                    raise
                found = [Member(PurePosixPath(place).name, trouble=str(error))]
            for member in found:
                is_trouble = member.trouble and prefix
                yield (prefix.rstrip("/") if is_trouble else f"{prefix}{member.name}"), member

    def _places(self) -> list[str]:
        if not is_pattern(self.images) or os.path.isfile(self.images):
            return [self.images]
        found = store_of(self.images).matching(self.images)
        if not found:
            raise ImageError(f"{self.images}: no file has such a name")
        return found

    def _base(self) -> str:
        """What all names that fit a pattern begin with, up to the last slash before its first sign."""
        parts = self.images.split("/")
        n = next(i for i, part in enumerate(parts) if is_pattern(part))
        return "".join(f"{part}/" for part in parts[:n])


def _members(place: str, suffixes: Collection[str]) -> list[Member]:
    kind = PurePosixPath(path_of(place).lower()).suffix[1:]
    found: list[Member] = registry.load(registry.PHOTOGRAPH_SHARDS, kind, "kind of shard")().members(place, suffixes)
    return found
