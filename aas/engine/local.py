"""Items of a stage on this machine: prepare in worker processes, compute in batches, finish what is to be written.

A stage says these three things about its items (stage.py); here are batches of like length, halving where memory does
not suffice, and one item's failure. Other engines (processes.py, cluster.py) do this in several processes.
"""

import errno
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import torch
from tqdm import tqdm

from aas.engine.stage import (
    Failure,
    I,
    Item,
    Job,
    Outcome,
    P,
    Plan,
    R,
    Stage,
    finished,
    is_out_of_memory,
    why,
)
from aas.engine.stopping import Stop
from aas.engine.workers import Finishing, in_workers
from aas.progress import bar_for
from aas.store.runs import GONE

# Nobody's result can be written: the run ends, instead of failing item by item.
ENDS_A_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, *GONE}

log = logging.getLogger(__name__)


def here(
    job: Job[I], items: Sequence[I], ready: Callable[[Mapping[str, Any]], None], stop: Stop
) -> Generator[tuple[I, str | None], None, None]:
    """This process does all: the engine that needs nothing else."""
    stage, plan, facts = job.begin()
    ready(facts)
    yield from each(stage, items, plan, stop)


def carry_out(stage: Stage[I, P, R], items: Sequence[I], plan: Plan) -> Iterator[tuple[I, str | None]]:
    """As `each`, with a progress bar."""
    with bar(len(items)) as progress:
        for outcome in each(stage, items, plan):
            yield outcome
            progress.update()


def bar(n_items: int) -> tqdm:
    """A progress bar; none for nothing to do."""
    return tqdm(total=n_items, unit="image", smoothing=0.1, **(bar_for(n_items) if n_items else {"disable": True}))


def each(
    stage: Stage[I, P, R], items: Iterable[I], plan: Plan, stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[I, str | None]]:
    """All three steps for all items, which may come one by one; of each, why it failed, if it did. `stop`: asked before
    each batch whether it is the last.

    Raises OSError where nothing more can be written, ChildProcessError where a worker was killed.
    """
    way = _by_item if plan.by_item else _by_batches
    for item, failure in way(stage, items, plan, stop):
        if failure is not None and failure.error is not None and failure.error.errno in ENDS_A_RUN:
            raise failure.error
        yield item, None if failure is None else failure.reason


# ------------------------------------------------------------------------------------------------------ preparing


@dataclass(frozen=True)
class _Prepared:
    """What became of an item: what the batches take, or why there is nothing. `item`: once it is back from a worker."""

    prepared: Any = None
    failure: Failure | None = None
    item: Any = None


@dataclass(frozen=True)
class _Preparing:
    """From an item to what was prepared of it, unless it failed before."""

    stage: Stage

    def __call__(self, fed: Outcome) -> _Prepared:
        item, failure = fed
        if failure is not None:
            return _Prepared(failure=failure)
        try:
            return _Prepared(self.stage.prepare(item))
        except Exception as error:  # whatever one item's trouble is, it costs nobody else's result
            return _Prepared(failure=Failure(why(error, item.image)))


def _fed(stage: Stage, items: Iterable[Item]) -> Iterator[Outcome]:
    """The items that can be prepared, and why others cannot."""
    for item, error in stage.fed(items):
        yield item, None if error is None else Failure(why(error, item.image))


# ------------------------------------------------------------------------------------------------------ computing


class _Computing:
    """What the models make of what was prepared. `batch_size` shrinks where memory does not suffice."""

    def __init__(self, stage: Stage, batch_size: int):
        self.stage, self.batch_size = stage, batch_size

    def results(self, batch: Sequence[_Prepared]) -> Iterator[tuple[Any, Any]]:
        """Of each the item, and its result or a Failure."""
        while batch:
            part, batch = batch[: self.batch_size], batch[self.batch_size :]
            found = self._tried(part)
            if not isinstance(found, Exception):
                yield from zip([one.item for one in part], found, strict=True)
            elif len(part) == 1:
                yield part[0].item, Failure(why(found, part[0].item.image))
            elif is_out_of_memory(found):
                self._shrink(len(part))
                yield from self.results(part)
            else:
                for one in part:
                    yield from self.results([one])

    def _tried(self, part: Sequence[_Prepared]) -> Sequence[Any] | Exception:
        try:
            return self.stage.compute([one.prepared for one in part])
        except Exception as error:  # it is looked at above, where its frames no longer hold the batch's memory
            return error.with_traceback(None)

    def _shrink(self, n_items: int) -> None:
        self.batch_size = n_items // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("out of memory: going on with batches of %d", self.batch_size)


def _batches(made: Iterable[_Prepared], size: int, stage: Stage) -> Iterator[list[_Prepared]]:
    """Batches of like length, so that little is padded; what could not be prepared is a batch of its own."""
    window: list[_Prepared] = []
    for one in made:
        if one.failure is not None:
            yield [one]
            continue
        window.append(one)
        if len(window) == stage.window_batches * size:
            yield from _split(window, size, stage)
            window = []
    yield from _split(window, size, stage)


def _split(window: list[_Prepared], size: int, stage: Stage) -> Iterator[list[_Prepared]]:
    window = sorted(window, key=lambda one: stage.length(one.prepared))
    for start in range(0, len(window), size):
        yield window[start : start + size]


def _by_batches(stage: Stage, items: Iterable[Item], plan: Plan, stop: Callable[[], bool]) -> Iterator[Outcome]:
    computing = _Computing(stage, plan.batch_size)
    pairs = takewhile(lambda _: not stop(), in_workers(_Preparing(stage), _fed(stage, items), plan.n_workers))
    made = (replace(one, item=item) for (item, _), one in pairs)
    with Finishing(stage, plan.finishes_elsewhere and plan.n_workers > 0) as finishing:
        for batch in _batches(made, plan.batch_size, stage):
            if stop():
                break
            if batch[0].failure is not None:
                yield batch[0].item, batch[0].failure
                continue
            for item, result in computing.results(batch):
                yield from [(item, result)] if isinstance(result, Failure) else finishing.finish(item, result)
        yield from finishing.rest()


# -------------------------------------------------------------------------------------- all steps in one worker


@dataclass(frozen=True)
class _Whole:
    """All three steps; why an item failed, if it did."""

    stage: Stage

    def __call__(self, fed: Outcome) -> Failure | None:
        item, made = fed[0], _Preparing(self.stage)(fed)
        if made.failure is not None:
            return made.failure
        ((_, result),) = _Computing(self.stage, 1).results([replace(made, item=item)])
        return result if isinstance(result, Failure) else finished(self.stage, item, result)


def _by_item(stage: Stage, items: Iterable[Item], plan: Plan, stop: Callable[[], bool]) -> Iterator[Outcome]:
    """One thread for each item, in workers as here: how a sum is split among threads changes its last bit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for (item, _), failure in in_workers(_Whole(stage), _fed(stage, items), plan.n_workers):
            yield item, failure
            if stop():
                break
    finally:
        torch.set_num_threads(n_threads)
