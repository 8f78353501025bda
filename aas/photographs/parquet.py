"""Parquet files with the bytes of images, as Hugging Face's `datasets` writes them: {bytes, path} in a column.

Needs pyarrow: `pip install "attend-and-segment[parquet]"`.
"""

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from aas.loading import in_short
from aas.photographs.limits import LIST_SECONDS, ImageError, check_bytes, patiently
from aas.photographs.member import Member
from aas.photographs.store import store_of

MAX_GROUP_MEGABYTES = 512  # of the images in a group of rows, which is read at once
NAMES = ("image", "img", "jpg", "jpeg", "png", "picture", "photo", "pixels", "bytes")  # of columns of bare bytes


class Parquet:
    """A parquet file, on this machine or behind a URL."""

    def members(self, place: str, suffixes: Collection[str] | None = None) -> list[Member]:
        """A member of each row, by the path that it has in the file; by its number where it has none, or shares it.

        ImageError for what is no parquet, or has no column of images, or several.
        """
        facts, now = store_of(place).facts(place), time.monotonic_ns()
        rows = patiently(lambda: list(_rows(place)), place, "read", LIST_SECONDS)
        paths = Counter(path for *_, path in rows)
        found = []
        for number, (group, row, path) in enumerate(rows):
            name = path if path and paths[path] == 1 else f"{number:08}"
            stamp = None if facts.id is None else f"{facts.id} {number}" if facts.id else ""
            found.append(Member(name, "parquet", place, None, stamp, (group, row, now)))
        return found

    def read(self, member: Member) -> bytes:
        """Its bytes; the group of rows that it is in is kept."""
        group, row, listed_at = member.at
        content = _group(member.place, group, listed_at)[row]
        if content is None:
            raise ImageError(f"{member}: this row holds no bytes, at most a path: embed the files when it is written")
        check_bytes(len(content), str(member))
        return content


@dataclass(frozen=True)
class _Column:
    """Where a file has its images: the columns of their bytes, and of their paths, if there is one."""

    content: str
    path: str | None = None


def _rows(place: str) -> Iterator[tuple[int, int, str | None]]:
    """Group, row in it, and path of each row. No image is read."""
    with _opened(place) as file:
        column = _image_column(file.schema_arrow, place)
        for group in range(file.num_row_groups):
            paths: Iterable[str | None] = [None] * file.metadata.row_group(group).num_rows
            if column.path:
                paths = _texts(file.iter_batches(4096, row_groups=[group], columns=[column.path], use_threads=False))
            yield from ((group, row, path) for row, path in enumerate(paths))


def _texts(batches: Iterable[Any]) -> Iterator[str | None]:
    """Of the one field of the one column of each batch; they need be no UTF-8."""
    import pyarrow

    for batch in batches:
        for value in batch.column(0).field(0).cast(pyarrow.binary()).to_pylist():
            yield None if value is None else value.decode(errors="surrogateescape")


@lru_cache(maxsize=1)
def _group(place: str, group: int, _listed_at: int) -> list[bytes | None]:
    """The images of a group of rows; those of the file of now, where it was listed anew."""
    return patiently(lambda: _read_group(place, group), place)


def _read_group(place: str, group: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    with _opened(place) as file:
        column = _image_column(file.schema_arrow, place).content
        _check_group(_told_bytes(file.metadata.row_group(group), column), group, place)
        n_bytes = 0
        # Row by row: a few bytes may stand for an image that is there a thousand times.
        for batch in file.iter_batches(1, row_groups=[group], columns=[column], use_threads=False):
            value = batch.column(0)[0].as_py()
            found.append(value["bytes"] if isinstance(value, dict) else value)
            n_bytes += len(found[-1] or b"")
            _check_group(n_bytes, group, place)
    return found


def _told_bytes(group: Any, column: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(one.total_uncompressed_size for one in columns if one.path_in_schema == column)


def _check_group(n_bytes: int, group: int, place: str) -> None:
    if n_bytes > MAX_GROUP_MEGABYTES * 1_000_000:
        raise ImageError(
            f"{place}: the images of its row group {group} are more than {MAX_GROUP_MEGABYTES} MB, and a group is read "
            "at once: write it anew with fewer rows in a group (row_group_size=100)"
        )


def _image_column(schema: Any, place: str) -> _Column:
    """The one that the file calls its images, else the one that looks like them; of several the one called image."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    structs = [one.name for one in schema if types.is_struct(one.type) and "bytes" in [part.name for part in one.type]
               and is_bytes(one.type.field("bytes").type)]  # fmt: skip
    bare = [one.name for one in schema if is_bytes(one.type)]
    named = [name for name in _features(schema) if name in (*structs, *bare)]
    found = named or structs or [name for name in bare if name.lower() in NAMES]
    if len(found) > 1 and "image" in found:
        found = ["image"]
    if len(found) != 1:
        columns = ", ".join(found or schema.names)
        what = "several columns of images: leave one" if found else "no column of images (their bytes)"
        raise ImageError(f"{place}: it has {what}. Columns: {columns}")
    name = found[0]
    if name not in structs:
        return _Column(name)
    kind = schema.field(name).type
    has_path = "path" in [part.name for part in kind] and not types.is_null(kind.field("path").type)
    return _Column(f"{name}.bytes", f"{name}.path" if has_path else None)


def _features(schema: Any) -> list[str]:
    """The columns that `datasets` noted as images."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [name for name, feature in features.items() if feature.get("_type") == "Image"]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImageError(f'{place}: parquet needs pyarrow: pip install "attend-and-segment[parquet]"') from error
    with store_of(place).opened(place) as file:
        try:
            yield pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
        except pyarrow.ArrowException as error:
            raise ImageError(f"{place}: no parquet file, or damaged ({in_short(error)})") from error
