"""One loop for every stage: what is done is skipped, what is new is noted, what failed is listed, and the exit code."""

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas.engine.local import bar, here
from aas.engine.stage import I, Job, Plan, Stage, Work
from aas.engine.stopping import CODE, Stop, stopping
from aas.imports import collector_paused
from aas.store.atomic import check_writable
from aas.store.heartbeats import Heartbeat
from aas.store.runs import RunFolder
from aas.store.sharding import Gathering
from aas.store.spools import sending

log = logging.getLogger(__name__)
# Who does the items: what to do, which, what hears that it begins, and whether to stop.
Outcomes = Generator[tuple[I, str | None], None, None]  # of each item, why it failed, if it did
Engine = Callable[[Job[I], Sequence[I], Callable[[Mapping[str, Any]], None], Stop], Outcomes[I]]


def fill(
    run: RunFolder,
    command: str,
    arguments: Mapping[str, Any],
    work: Work[I],
    load: Callable[[str | None], tuple[Stage[I, Any, Any], Plan, Mapping[str, Any]]],
    done: Callable[[I], None] = lambda item: None,
    made: Path | None = None,
    engine: "Engine | None" = None,
) -> int:
    """Fill a run folder with the items that it lacks; returns the exit code.

    `arguments` decide what the items are: a folder of another run is refused before `load(device)` loads any model and
    says how the stage runs and what is noted of it. `done` hears of each item that is new; `made`: what people will
    want to open, if not the folder. `engine`: who does the items, this process if None.
    """
    waiting = _waiting(run, command, arguments, work)
    gathering = Gathering(run, work.groups, (item.key for item in waiting))
    if waiting or work.missing:
        check_writable(run.path)
    count = _Count(failed=len(work.missing))
    with stopping() as stop, bar(len(waiting)) as progress:

        def ready(facts: Mapping[str, Any]) -> None:
            run.begin(command, arguments, {**facts, "n_images": work.n_all}, work.asked)
            _begin_anew(run, work, gathering)
            stop.in_hand = True
            progress.unpause()

        if waiting:
            outcomes = (engine or here)(Job(load, run, work.files, not work.groups), waiting, ready, stop)
            _note(run, work, outcomes, progress, count, done, gathering)
        else:
            _begin_anew(run, work, gathering)
    there = len(work.items) - len(waiting)
    log.info("%d done, %d were there, %d failed: %s", count.new, there, count.failed, made or run.path)
    if stop.asked and count.new + count.failed < len(waiting) + len(work.missing):
        log.warning("stopped: the same command goes on from here (exit code %d)", CODE)
        return CODE
    return 3 if count.failed else 0


@collector_paused()  # a million items are no garbage
def _waiting(run: RunFolder, command: str, arguments: Mapping[str, Any], work: Work[I]) -> list[I]:
    """The items that are not done yet. Raises ValueError where those that are were made of other things."""
    done = run.done_of(item.key for item in work.items)
    if run.description_path.exists():
        run.begin(command, arguments, {}, work.asked)
        names = ((done.get(item.key), item) for item in work.items)
        run.check_files((name, work.files(item)) for name, item in names if name is not None)
    return [item for item in work.items if item.key not in done]


@dataclass
class _Count:
    """Items that are new, and that failed."""

    new: int = 0
    failed: int = 0


def _begin_anew(run: RunFolder, work: Work, gathering: Gathering) -> None:
    """What failed before is tried again; what cannot be tried is told."""
    run.sweep()
    run.forget_failures(None if work.is_whole else work.keys())
    for key, reason in work.missing:
        run.fail(key, reason)
    gathering.begin()


def _note(
    run: RunFolder,
    work: Work[I],
    outcomes: Outcomes[I],
    progress: tqdm,
    count: _Count,
    done: Callable[[I], None],
    gathering: Gathering,
) -> None:
    """Say what becomes of each item: to people, to the folder, to `done`. However it ends, the engine's processes end
    with it."""
    with (
        closing(outcomes),
        Heartbeat(run.path, work.chunk.index, work.chunk.count) as heartbeat,
        sending(run.path, heartbeat.tell, with_items=not work.groups),
    ):
        for item, failed in outcomes:
            progress.update()
            if failed is None:
                count.new += 1
                done(item)
            else:
                run.check_there()
                count.failed += 1
                run.fail(item.key, failed, work.shown(item))
            heartbeat.count(failed is not None)
            gathering.count(item.key)
