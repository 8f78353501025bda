"""What a stage works on, and which items go together: about one photograph, into one shard, to one process."""

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

from aas.photographs import File, Member
from aas.store import sharding

LEAST_GROUPS = 8  # of each chunk, so that none has much more to do than others


class Item(Protocol):
    """What a stage is to do: `key` names its result, `image` is the photograph that it is about."""

    @property
    def key(self) -> str: ...

    @property
    def image(self) -> File: ...


I = TypeVar("I", bound=Item)  # noqa: E741


def groups_of(items: Sequence[I]) -> list[list[I]]:
    """The items that are to share a shard, in their order, those about one photograph together; none where they are so
    few that they stay files."""
    if len(items) <= sharding.MOST_LOOSE:
        return []
    groups: list[list[I]] = [[]]
    group_of: dict[File, list[I]] = {}
    for item in items:
        group = group_of.get(item.image)
        if group is None:
            if len(groups[-1]) >= sharding.SHARD_ITEMS:
                groups.append([])
            group = group_of[item.image] = groups[-1]
        group.append(item)
    return groups


def chunk_of(items: Sequence[I], num_chunks: int, chunk_idx: int, groups: Sequence[Sequence[I]] = ()) -> list[I]:
    """Items about one photograph stay together: it is read and encoded once for all of them. So do `groups`, where each
    chunk gets several: then a shard is complete when one chunk has done its part."""
    if len(groups) >= LEAST_GROUPS * num_chunks:
        return [item for group in groups[chunk_idx::num_chunks] for item in group]
    numbers = {image: i for i, image in enumerate(dict.fromkeys(item.image for item in items))}
    return [item for item in items if numbers[item.image] % num_chunks == chunk_idx]


def wanted(items: Sequence[I], only: Collection[str], gone: Collection[str]) -> list[I]:
    """The items whose keys are in `only`, and all in shards that `gone` names by the end of their paths, as a run calls
    one that could not be read: it was mended since."""
    mended = {place for place in set(map(_shard_of, items)) if gone and not _ends_of(place).isdisjoint(gone)}
    return [item for item in items if item.key in only or _shard_of(item) in mended]


def _shard_of(item: Item) -> str:
    return item.image.place if isinstance(item.image, Member) else ""


def _ends_of(place: str) -> set[str]:
    parts = place.split("/")
    ends = {"/".join(parts[start:]) for start in range(len(parts))} - {""}
    return ends | {end.removesuffix(PurePosixPath(end).suffix) for end in ends}  # `aas ground` names results so
