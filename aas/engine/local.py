"""One loop for every stage: prepare in worker processes, compute in batches, finish what is to be written.

A stage says these three things about its items (stage.py); here is everything else: what is done already, batches of
like length, halving where memory does not suffice, one item's failure, progress. Another engine makes the same three
calls elsewhere.
"""

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from aas.engine.stage import (
    Failure,
    I,
    Item,
    Noting,
    Outcome,
    P,
    Plan,
    R,
    Stage,
    Work,
    finished,
    is_out_of_memory,
    why,
)
from aas.engine.stopping import CODE, Stop, stopping
from aas.engine.workers import Finishing, in_workers
from aas.progress import bar_for
from aas.store.atomic import check_writable
from aas.store.heartbeats import Heartbeat
from aas.store.runs import RunFolder

# Nobody's result can be written: the run ends, instead of failing item by item.
ENDS_A_RUN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}

log = logging.getLogger(__name__)


def fill(
    run: RunFolder,
    command: str,
    arguments: Mapping[str, Any],
    work: Work[I],
    load: Callable[[], tuple[Stage[I, Any, Any], Plan, Mapping[str, Any]]],
    done: Callable[[I], None] = lambda item: None,
    made: Path | None = None,
) -> int:
    """Fill a run folder with the items that it lacks; returns the exit code.

    `arguments` decide what the items are: a folder of another run is refused before `load` loads any model and says how
    the stage runs and what is noted of it. `done` hears of each item that is new; `made`: what people will want to
    open, if not the folder.
    """
    if run.description_path.exists():
        run.begin(command, arguments, {}, work.asked)
        run.check_files({item.key: work.files(item) for item in work.items})
    waiting = [item for item in work.items if not run.is_done(item.key)]
    if waiting or work.missing:
        check_writable(run.path)
    with stopping() as stop, Heartbeat(run.path, work.chunk.index, work.chunk.count) as heartbeat:
        if waiting:
            stage, plan, facts = load()
            stage = Noting(stage, run, work.files)
            run.begin(command, arguments, {**facts, "n_images": work.n_all}, work.asked)
            run.sweep()
        mine = {item.key for item in work.items} | {key for key, _ in work.missing}
        run.forget_failures(None if work.is_whole else mine)
        for key, reason in work.missing:
            run.fail(key, reason)
        n_new, n_failed = 0, len(work.missing)
        for item, failed in carry_out(stage, waiting, plan, stop) if waiting else ():
            heartbeat.count(failed is not None)
            if failed is None:
                n_new += 1
                done(item)
            else:
                n_failed += 1
                run.fail(item.key, failed, stage.shown(item))
    log.info("%d done, %d were there, %d failed: %s", n_new, len(work.items) - len(waiting), n_failed, made or run.path)
    if stop.asked:
        log.warning("stopped: the same command goes on from here (exit code %d)", CODE)
        return CODE
    return 3 if n_failed else 0


def carry_out(
    stage: Stage[I, P, R], items: Sequence[I], plan: Plan, stop: Stop | None = None
) -> Iterator[tuple[I, str | None]]:
    """All three steps for all items, with a progress bar; of each, why it failed, if it did. `stop`: asked before each
    batch whether it is the last.

    Raises OSError where nothing more can be written, ChildProcessError where a worker was killed.
    """
    way, stop = _by_item if plan.by_item else _by_batches, stop or Stop()
    with tqdm(total=len(items), unit="image", smoothing=0.1, **bar_for(len(items))) as progress:
        stop.in_hand = True
        for index, failure in way(stage, items, plan, stop):
            if failure is not None and failure.error is not None and failure.error.errno in ENDS_A_RUN:
                raise failure.error
            yield items[index], None if failure is None else failure.reason
            progress.update()


# ------------------------------------------------------------------------------------------------------ preparing


@dataclass(frozen=True)
class _Prepared:
    """What became of item number `index`: what the batches take, or why there is nothing."""

    index: int
    prepared: Any = None
    failure: Failure | None = None


class _Preparing(Dataset):
    """Each entry is an item prepared."""

    def __init__(self, stage: Stage, items: Sequence[Item]):
        self.stage, self.items = stage, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> _Prepared:
        item = self.items[index]
        try:
            return _Prepared(index, self.stage.prepare(item))
        except Exception as error:  # whatever one item's trouble is, it costs nobody else's result
            return _Prepared(index, failure=Failure(why(error, item.image)))


# ------------------------------------------------------------------------------------------------------ computing


class _Computing:
    """What the models make of what was prepared. `batch_size` shrinks where memory does not suffice."""

    def __init__(self, stage: Stage, items: Sequence[Item], batch_size: int):
        self.stage, self.items, self.batch_size = stage, items, batch_size

    def results(self, batch: Sequence[_Prepared]) -> Iterator[tuple[int, Any]]:
        """Of each its index, and its result or a Failure."""
        while batch:
            part, batch = batch[: self.batch_size], batch[self.batch_size :]
            found = self._tried(part)
            if not isinstance(found, Exception):
                yield from zip([one.index for one in part], found, strict=True)
            elif len(part) == 1:
                yield part[0].index, Failure(why(found, self.items[part[0].index].image))
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


def _by_batches(stage: Stage, items: Sequence[Item], plan: Plan, stop: Stop) -> Iterator[Outcome]:
    computing = _Computing(stage, items, plan.batch_size)
    made = takewhile(lambda _: not stop(), in_workers(_Preparing(stage, items), plan.n_workers))
    with Finishing(stage, items, plan.finishes_elsewhere and plan.n_workers > 0) as finishing:
        for batch in _batches(made, plan.batch_size, stage):
            if stop():
                break
            if batch[0].failure is not None:
                yield batch[0].index, batch[0].failure
                continue
            for index, result in computing.results(batch):
                yield from [(index, result)] if isinstance(result, Failure) else finishing.finish(index, result)
        yield from finishing.rest()


# -------------------------------------------------------------------------------------- all steps in one worker


class _Whole(Dataset):
    """Each entry is an item done: its index, and why it failed, if it did."""

    def __init__(self, stage: Stage, items: Sequence[Item]):
        self.stage, self.items, self.preparing = stage, items, _Preparing(stage, items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Outcome:
        made = self.preparing[index]
        if made.failure is not None:
            return index, made.failure
        ((_, result),) = _Computing(self.stage, self.items, 1).results([made])
        return index, result if isinstance(result, Failure) else finished(self.stage, self.items[index], result)


def _by_item(stage: Stage, items: Sequence[Item], plan: Plan, stop: Stop) -> Iterator[Outcome]:
    """One thread for each item, in workers as here: how a sum is split among threads changes its last bit."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for outcome in in_workers(_Whole(stage, items), plan.n_workers):
            yield outcome
            if stop():
                break
    finally:
        torch.set_num_threads(n_threads)
