"""What the files of a shard hold: the files of many items in one, each with the bytes that it had by itself.

Attention goes into one safetensors file, whose tensors are called `FILE/maps` and so on and which holds, as metadata,
the header that each item had. Results go into a file of JSON lines, `{"item": FILE, "result": …}`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from aas.store.atomic import written
from aas.store.keys import ATTENTION_SUFFIX, MAX_BYTES, RESULT_SUFFIX

LENGTH = 8  # bytes before a safetensors header, which say how long it is
ALIGNED = 8  # an item's numbers begin at a multiple of so many bytes, so that every library may view them in place
MOST_HEADER = 100_000_000  # bytes, as safetensors has it
BLOCK = 1 << 20
Stamp = tuple[int, int, int]


class Replaced(OSError):
    """A file is another one since its pieces were looked up."""


def stamp_of(found: os.stat_result) -> Stamp:
    """What changes when a file is replaced."""
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(frozen=True)
class Piece:
    """Where an item's bytes are: `head`, then `file` from `start` to `end`, then `tail`. `stamp`: of that file,
    as it was then."""

    file: Path
    start: int
    end: int
    head: bytes = b""
    tail: bytes = b""
    stamp: Stamp | None = None

    def blocks(self) -> Iterator[bytes]:
        """The bytes, some at a time. Raises Replaced where the file is another one by now, ValueError where it is cut
        off."""
        yield self.head
        yield from self.body()
        yield self.tail

    def body(self) -> Iterator[bytes]:
        """Those of the file alone."""
        with self.file.open("rb") as content:
            if self.stamp not in (None, stamp_of(os.fstat(content.fileno()))):
                raise Replaced(f"{self.file} is another file by now")
            content.seek(self.start)
            left = self.end - self.start
            while left:
                block = content.read(min(left, BLOCK))
                if not block:
                    raise ValueError(f"{self.file} is cut off")
                left -= len(block)
                yield block

    def content(self) -> bytes:
        """All of them."""
        return b"".join(self.blocks())

    def digest(self) -> str:
        """SHA-256, hexadecimal."""
        found = sha256()
        for block in self.blocks():
            found.update(block)
        return found.hexdigest()


def loose(path: Path) -> Piece:
    """Of an item that has a file of its own. Raises ValueError for one that cannot be put into a shard and be taken out
    again as it was, OSError where it is gone."""
    size = path.stat().st_size
    if path.suffix != ATTENTION_SUFFIX:
        content = path.read_bytes()
        if content.find(b"\n") != size - 1 or not isinstance(json.loads(content), dict):
            raise ValueError(f"{path} is no JSON object on a line")
        return Piece(path, 0, size - 1, tail=b"\n")
    with path.open("rb") as file:
        head = file.read(LENGTH)
        head += file.read(min(int.from_bytes(head, "little"), MOST_HEADER))
    piece = Piece(path, len(head), size, head)
    if _n_bytes(_tensors(head)) != piece.end - piece.start:
        raise ValueError(f"{path} is not as long as its header says")
    return piece


def _tensors(head: bytes) -> dict[str, Any]:
    """Name -> what a safetensors header says of it."""
    content = json.loads(head[LENGTH:])
    content.pop("__metadata__", None)
    return content


def _n_bytes(tensors: Mapping[str, Any]) -> int:
    return max((one["data_offsets"][1] for one in tensors.values()), default=0)


# ---------------------------------------------------------------------------------------------------- attention


def write_attention(path: Path, items: Mapping[str, Piece]) -> None:
    """One safetensors file of all items, which have names; the same items give the same bytes."""
    entries: dict[str, Any] = {"__metadata__": {name: piece.head[LENGTH:].decode() for name, piece in items.items()}}
    at = 0
    for name, piece in items.items():
        tensors = sorted(_tensors(piece.head).items(), key=lambda one: one[1]["data_offsets"])
        for tensor, told in tensors:
            entries[f"{name}/{tensor}"] = told | {"data_offsets": [at + offset for offset in told["data_offsets"]]}
        at += piece.end - piece.start
        if at % ALIGNED:
            filling = -at % ALIGNED
            entries[f"{name}/filling"] = {"dtype": "U8", "shape": [filling], "data_offsets": [at, at + filling]}
            at += filling
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % ALIGNED)
    with written(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(LENGTH, "little") + header)
        for piece in items.values():
            file.writelines(piece.body())
            file.write(bytes(-(piece.end - piece.start) % ALIGNED))


def attention_pieces(path: Path) -> dict[str, Piece]:
    """Name -> where its bytes are, of every item of such a file.

    Raises ValueError where it is damaged.
    """
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        length = int.from_bytes(file.read(LENGTH), "little")
        header = file.read(min(length, MOST_HEADER))
    found, at = {}, LENGTH + length
    for name, head in json.loads(header)["__metadata__"].items():
        encoded = head.encode()
        encoded = len(encoded).to_bytes(LENGTH, "little") + encoded
        n_bytes = _n_bytes(_tensors(encoded))
        found[name] = Piece(path, at, at + n_bytes, encoded, stamp=stamp)
        at += n_bytes + -n_bytes % ALIGNED
    return found


# ------------------------------------------------------------------------------------------------------ results


def write_results(path: Path, items: Mapping[str, Piece]) -> None:
    """A line for each item, which have names; the same items give the same bytes."""
    with written(path) as temporary, temporary.open("wb") as file:
        for name, piece in items.items():
            file.write(_before(name))
            file.writelines(piece.body())
            file.write(_BEHIND)


def result_pieces(path: Path) -> dict[str, Piece]:
    """As `attention_pieces`, of results."""
    found, at = {}, 0
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        for line in file:
            name = _named(line)
            found[name] = Piece(path, at + len(_before(name)), at + len(line) - len(_BEHIND), b"", b"\n", stamp)
            at += len(line)
    return found


_BEHIND = b"}\n"


def _before(name: str) -> bytes:
    return f'{{"item": {json.dumps(name)}, "result": '.encode()


def _named(line: bytes) -> str:
    """The item that a line is about; ValueError where it is cut off."""
    name, _ = json.JSONDecoder().raw_decode(line[: 4 * MAX_BYTES].decode(errors="ignore"), len('{"item": '))
    if not isinstance(name, str) or not line.startswith(_before(name)) or not line.endswith(_BEHIND):
        raise ValueError(f"{line[:40]!r} is no line of results")
    return name


# ------------------------------------------------------------------------------------------- by what an item is


@dataclass(frozen=True)
class Kind:
    """Items of one suffix: that of a shard's file of them, its writer, and its reader."""

    suffix: str
    write: Callable[[Path, Mapping[str, Piece]], None]
    pieces: Callable[[Path], dict[str, Piece]]


KINDS = {
    ATTENTION_SUFFIX: Kind(".safetensors", write_attention, attention_pieces),
    RESULT_SUFFIX: Kind(".results.jsonl", write_results, result_pieces),
}
