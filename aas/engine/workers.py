"""Processes beside the one that has the models: some that prepare, and one that finishes."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from aas.engine.stage import Item, Outcome, Plan, Stage, finished
from aas.forked import end_with

FEW_ITEMS = 8  # for fewer, starting processes takes longer than they save
MOST_WORKERS = 8
MAX_WAITING = 16  # results on their way to the process that finishes them


def n_workers(asked: int | None, n_items: int, default: int) -> int:
    """How many processes to start: what was `asked` for, else `default` within bounds; 0 is none."""
    if asked is not None:
        return asked
    return 0 if n_items < FEW_ITEMS or not hasattr(os, "fork") else min(MOST_WORKERS, max(1, default))


def half_the_cores() -> int:
    """The other half is the model's."""
    return (os.cpu_count() or 2) // 2


def plan_for(batch_size: int, asked: int | None, n_items: int, by_item: bool) -> Plan:
    """On a GPU, and with large models on a CPU, one process computes, others prepare, and one more finishes. Small
    models on a CPU leave cores idle that way: there, `by_item`, each worker does all for its own items, as many workers
    as torch would take threads."""
    if by_item:
        return Plan(1, n_workers(asked, n_items, torch.get_num_threads()), by_item=True)
    return Plan(batch_size, n_workers(asked, n_items, half_the_cores()), finishes_elsewhere=True)


class _Called(Dataset):
    """A function as a dataset: its entry of an item is what it makes of that."""

    def __init__(self, made: Callable[[Any], Any]):
        self.made = made

    def __getitem__(self, item: Any) -> Any:
        return self.made(item)


def in_workers(made: Callable[[Any], Any], items: Iterable[Any], n: int) -> Iterator[tuple[Any, Any]]:
    """Each item and what `made` makes of it, in their order, by one of `n` processes; with none, here. Items are taken
    when a process is free for them, two for each at once."""
    if n == 0:
        yield from ((item, made(item)) for item in items)
        return
    taken = deque[Any]()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # they are forked
    collate: Any = _packed  # of one entry, since nothing is batched here
    init = partial(end_with, os.getpid())
    order: Any = _noted(items, taken)  # what it hands to the processes need be no number
    loader = DataLoader(
        _Called(made), batch_size=None, sampler=order, num_workers=n, collate_fn=collate,
        multiprocessing_context="fork", worker_init_fn=init,
    )  # fmt: skip
    with _told_of_deaths():
        yield from ((taken.popleft(), _unpacked(entry)) for entry in loader)


def _noted(items: Iterable[Any], taken: deque[Any]) -> Iterator[Any]:
    for item in items:
        taken.append(item)
        yield item


@contextmanager
def _told_of_deaths() -> Iterator[None]:
    """ChildProcessError, in one line, where a process was killed that this one waits for. The others end with it: one
    may wait for ever for a lock that the dead one had."""
    before = set(active_children())
    try:
        yield
    except (RuntimeError, BrokenExecutor) as error:
        if not isinstance(error, BrokenExecutor) and "DataLoader worker" not in str(error):
            raise
        for child in set(active_children()) - before:
            child.kill()
        raise ChildProcessError(
            "a worker process was killed (by the system, where the memory did not suffice). What is done stays: run "
            "the same command again, with fewer --workers if it happens again."
        ) from error


def _packed(entry: Any) -> Any:
    """Tensors as arrays, which go through a pipe; tensors would each hold a file open."""
    return _changed(entry, lambda value: _Array(value.numpy()) if isinstance(value, Tensor) else value)


def _unpacked(entry: Any) -> Any:
    return _changed(entry, lambda value: torch.from_numpy(value.array) if isinstance(value, _Array) else value)


class _Array:
    """An array that was a tensor."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with `change` made of everything inside its dataclasses, dictionaries, lists and tuples."""
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _changed(getattr(value, f.name), change) for f in fields(value) if f.init})
    if type(value) is dict:
        return {key: _changed(entry, change) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_changed(entry, change) for entry in value)
    return change(value)


_stage: Stage  # in the process that finishes, which inherits it


def _inherit(parent: int, stage: Stage) -> None:
    global _stage
    end_with(parent)
    _stage = stage


def _finished_there(item: Item, result: Any) -> Outcome:
    return item, finished(_stage, item, result)


class Finishing:
    """Finishes results, here or in another process; says of each, some time later, what became of it."""

    def __init__(self, stage: Stage, elsewhere: bool):
        self.stage = stage
        self.waiting: deque[Future[Outcome]] = deque()
        self.pool = None
        if elsewhere:
            self.pool = ProcessPoolExecutor(1, get_context("fork"), _inherit, (os.getpid(), stage))
            self.pool.submit(int).result()  # starts it now, while this process has few threads

    def __enter__(self) -> "Finishing":
        return self

    def finish(self, item: Item, result: Any) -> Iterator[Outcome]:
        """Hands over one result; says what became of those that are done by now."""
        if self.pool is None:
            yield item, finished(self.stage, item, result)
            return
        self.waiting.append(self.pool.submit(_finished_there, item, result))
        while len(self.waiting) > MAX_WAITING or (self.waiting and self.waiting[0].done()):
            yield self._first()

    def rest(self) -> Iterator[Outcome]:
        """Waits for those that are not done yet."""
        while self.waiting:
            yield self._first()

    def _first(self) -> Outcome:
        with _told_of_deaths():
            return self.waiting.popleft().result()

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
