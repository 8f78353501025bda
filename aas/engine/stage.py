"""What a stage is: three things that it does to an item, and how that runs on this machine."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch

from aas.engine.chunks import ALL, Chunk
from aas.engine.items import I, Item, chunk_of, groups_of, wanted
from aas.images import ImageError
from aas.loading import in_short, is_ours
from aas.photographs import File
from aas.store.made_of import Files
from aas.store.runs import RunFolder

log = logging.getLogger(__name__)
P = TypeVar("P")
R = TypeVar("R")


class Stage(ABC, Generic[I, P, R]):
    """From an item to what is stored of it, in three calls. Whatever each of them raises is that item's failure."""

    window_batches = 1  # items of so many batches are brought into the order of their lengths

    def fed(self, items: Iterable[I]) -> Iterator[tuple[I, Exception | None]]:
        """Each item when it can be prepared, in any order, or with why it cannot: where something of it is made
        elsewhere, many are waited for at once."""
        return ((item, None) for item in items)

    @abstractmethod
    def prepare(self, item: I) -> P:
        """Everything that needs no model on a device: reading, resizing. In a worker process, if there are any."""

    @abstractmethod
    def compute(self, batch: Sequence[P]) -> Sequence[R]:
        """What the models make of a batch, in its order. Where it fails, smaller batches are tried, down to one."""

    @abstractmethod
    def finish(self, item: I, result: R) -> None:
        """Write the item's result. In a process of its own, if the plan says so."""

    def length(self, prepared: P) -> int:
        """Items of like length share a batch; those of one length stay in their order."""
        return 0


class Noting(Stage[I, P, R]):
    """Another stage; what each item is made of is noted before, and what was written of it afterwards.

    Each note takes the folder's lock. Two are needed where items stay files: an item that a kill parted from the only
    one would be nobody's. Where they go into shards, which tell it, `notes_results` is off.
    """

    def __init__(self, stage: Stage[I, P, R], run: RunFolder, files: Callable[[I], Files], notes_results: bool):
        self.stage, self.run, self.files, self.notes_results = stage, run, files, notes_results
        self.window_batches = stage.window_batches

    def fed(self, items: Iterable[I]) -> Iterator[tuple[I, Exception | None]]:
        return self.stage.fed(items)

    def prepare(self, item: I) -> P:
        self.run.note_files(item.key, self.files(item))
        return self.stage.prepare(item)

    def compute(self, batch: Sequence[P]) -> Sequence[R]:
        return self.stage.compute(batch)

    def finish(self, item: I, result: R) -> None:
        self.run.check_there()
        self.stage.finish(item, result)
        if self.notes_results:
            self.run.note_result(item.key)

    def length(self, prepared: P) -> int:
        return self.stage.length(prepared)


@dataclass(frozen=True)
class Plan:
    """How a stage runs on this machine. `n_workers` processes prepare; 0 is none. `finishes_elsewhere`: one more
    process finishes. `by_item`: each worker does all three steps for its own items, on one core."""

    batch_size: int = 1
    n_workers: int = 0
    finishes_elsewhere: bool = False
    by_item: bool = False


def photograph_of(item: Item) -> dict[str, File]:
    """What most items are made of."""
    return {"photograph": item.image}


@dataclass(frozen=True)
class Job(Generic[I]):
    """All that a process needs to do items of a run, wherever it is: so it can be pickled. `load(device)`: the stage
    with its models, how it runs there, and what is noted of it; None is the options' own device. `notes_results`: not
    where the items go into shards."""

    load: Callable[[str | None], tuple[Stage[I, Any, Any], Plan, Mapping[str, Any]]]
    run: RunFolder
    files: Callable[[I], Files] = photograph_of
    notes_results: bool = True

    def begin(self, device: str | None = None) -> tuple[Stage[I, Any, Any], Plan, Mapping[str, Any]]:
        """As `load`, of a stage that notes what it does."""
        stage, plan, facts = self.load(device)
        return Noting(stage, self.run, self.files, self.notes_results), plan, facts


@dataclass(frozen=True)
class Work(Generic[I]):
    """The items of this chunk; the (key, reason) of those that cannot be tried; the number of all chunks'; and whether
    there is no other chunk. `files`: what an item is made of; `shown`: what people call it, where that is not its key;
    `asked`: key -> fingerprint of its line of --answers, of all chunks; `groups`: the keys of all chunks' items that
    are to share a shard; `gone`: keys that were to be tried and are none any more."""

    items: Sequence[I]
    missing: Sequence[tuple[str, str]]
    n_all: int
    is_whole: bool = True
    files: Callable[[I], Files] = photograph_of
    shown: Callable[[I], str | None] = lambda item: None
    asked: Mapping[str, str] = field(default_factory=dict)
    chunk: Chunk = ALL
    groups: Sequence[Sequence[str]] = ()
    gone: Collection[str] = ()

    def keys(self) -> set[str]:
        """Of all items of this chunk, and of what cannot be tried."""
        return {item.key for item in self.items}.union((key for key, _ in self.missing), self.gone)

    def part(self, chunk: Chunk, only: Collection[str] | None = None) -> "Work[I]":
        """Of the work of all chunks that of one, and of it the keys in `only`, which may be a shard's own: where that
        was mended, all in it. What cannot be tried is the first one's to tell."""
        if chunk.said_by:
            log.info("chunk %d of %d (from 0), as %s say", chunk.index, chunk.count, chunk.said_by)
        groups = groups_of(self.items)
        items = chunk_of(self.items, chunk.count, chunk.index, groups)
        missing = [] if chunk.index else self.missing
        gone = set[str]() if only is None else {*only} - self.keys()
        if only is not None:
            items, missing = wanted(items, only, gone), [one for one in missing if one[0] in only]
        is_whole, keys = chunk.count == 1 and only is None, [[item.key for item in group] for group in groups]
        return replace(self, items=items, missing=missing, is_whole=is_whole, chunk=chunk, groups=keys, gone=gone)


@dataclass(frozen=True)
class Failure:
    """Why an item has no result; of an OSError also the error, since it may concern everybody."""

    reason: str
    error: OSError | None = None


Outcome = tuple[I, Failure | None]  # an item, and why it failed, if it did


def why(error: Exception, image: File) -> str:
    """One line that names the photograph."""
    if isinstance(error, ImageError):
        return str(error)
    if is_ours(error):
        return f"{image}: {error}"
    if is_out_of_memory(error):
        return f"{image}: the memory does not suffice for it; shrink it, or take a smaller model ({in_short(error)})"
    return f"{image}: {in_short(error)}"


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch may do."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def finished(stage: Stage, item: Item, result: Any) -> Failure | None:
    """Why the result of `item` could not be finished, None where it could."""
    try:
        stage.finish(item, result)
    except Exception as error:  # whatever one item's trouble is, it costs nobody else's result
        return Failure(why(error, item.image), error if isinstance(error, OSError) else None)
    return None
