"""One process for each GPU of this machine over one queue: a slow one takes fewer items and holds nobody up."""

import os
import pickle
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from aas.engine.ledger import POISON, Ledger
from aas.engine.local import each
from aas.engine.stage import I, Job
from aas.engine.stopping import Stop
from aas.forked import end_with
from aas.loading import in_short

PAUSE = "finish what you have, then ask again"
MOST_BAD_STARTS = 3  # of workers that are killed before they have loaded their models
HEAR_SECONDS = 0.5
SERVED = get_context("forkserver")  # forked from a process that has imported all and used no GPU, which survives that


class Processes:
    """An engine (`engine/filling.py`): a process for each of `devices`, which may name one several times.

    A process that is killed is started again; an item that was in the hands of three is given up.
    """

    def __init__(self, devices: Sequence[str]):
        self.devices = devices

    def __call__(
        self, job: Job[I], items: Sequence[I], ready: Callable[[Mapping[str, Any]], None], stop: Stop
    ) -> Generator[tuple[I, str | None], None, None]:
        ledger = Ledger(items)
        with _crew(job, self.devices[: len(items)]) as crew:
            while ledger.is_open and crew.members:
                if stop():
                    crew.halt.set()
                for member in crew.heard():
                    yield from _hear(member, crew, ledger, ready, stop)
                for member in crew.members:
                    _answer(member, ledger, stop)


def _hear(
    member: "_Member", crew: "_Crew", ledger: Ledger[I], ready: Callable[[Mapping[str, Any]], None], stop: Stop
) -> Iterator[tuple[I, str | None]]:
    """What a member says, or that it is dead; the outcomes that follow."""
    try:
        what, *said = member.line.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        crew.lose(member, start_another=not stop())
        yield from ((item, f"{item.image}: {POISON}") for item in ledger.died(member))
        return
    if what == "ready":
        if not crew.has_begun:  # the first says it for all
            ready(*said)
        member.is_ready = crew.has_begun = True
    elif what == "more":
        member.asks = True
    elif what == "done":
        key, reason = said
        yield ledger.done(member, key), reason
    else:
        raise said[0]


def _answer(member: "_Member", ledger: Ledger, stop: Stop) -> None:
    """An item, where it asks for one and there is one. It waits while others have the last, which may come back."""
    if not member.asks:
        return
    item = None if stop() else ledger.next_for(member)
    if item is None and not stop() and not ledger.taken.get(member):
        return
    with suppress(OSError):  # it is dead: that is heard
        member.line.send(PAUSE if item is None else item)
        member.asks = False


# ------------------------------------------------------------------------------------------------------- the crew


class _Member:
    """One process, and the line to it."""

    def __init__(self, job: Job, device: str, halt: Any):
        self.device, self.asks, self.is_ready = device, False, False
        self.line, theirs = SERVED.Pipe()
        self.process = SERVED.Process(target=_serve, args=(theirs, job, device, halt))
        with _no_bars():
            self.process.start()
        theirs.close()


class _Crew:
    """The processes that are there."""

    def __init__(self, job: Job, devices: Sequence[str]):
        of_job = getattr(job.load, "func", job.load).__module__
        SERVED.set_forkserver_preload(["aas.engine.preloaded", __name__, of_job])
        self.job, self.halt, self.bad_starts, self.has_begun = job, SERVED.Event(), 0, False
        self.members = [_Member(job, device, self.halt) for device in devices]

    def heard(self) -> list[_Member]:
        """Those that said something, or are dead."""
        lines = {member.line: member for member in self.members}
        return [lines[line] for line in wait(list(lines), HEAR_SECONDS) if isinstance(line, Connection)]

    def lose(self, member: _Member, start_another: bool) -> None:
        """Another for one that is dead. Raises ChildProcessError where they die as they start."""
        self.members.remove(member)
        member.line.close()
        member.process.join()
        self.bad_starts = 0 if member.is_ready else self.bad_starts + 1
        if self.bad_starts >= MOST_BAD_STARTS:
            raise ChildProcessError(
                f"processes on {member.device} are killed while they load the models (by the system, where the memory "
                "does not suffice): try fewer of them, or a smaller model."
            )
        if start_another:
            self.members.append(_Member(self.job, member.device, self.halt))


@contextmanager
def _crew(job: Job, devices: Sequence[str]) -> Iterator[_Crew]:
    """The processes, gone afterwards."""
    crew = _Crew(job, devices)
    try:
        yield crew
    finally:
        crew.halt.set()
        for member in crew.members:
            member.line.close()  # which ends it
        for member in crew.members:
            member.process.join(HEAR_SECONDS)
            member.process.kill()
            member.process.join()


@contextmanager
def _no_bars() -> Iterator[None]:
    """Processes that are started within draw none; it is read when they import the library."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]


# -------------------------------------------------------------------------------------------------- in a process


def _serve(line: Connection, job: Job, device: str, halt: Any) -> None:
    """Do items until the line is closed, or `halt` is set."""
    end_with(os.getppid())  # which ends with the one that began it
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            stage, plan, facts = job.begin(device)
            line.send(("ready", dict(facts)))
            while not halt.is_set():
                for item, reason in each(stage, _asked(line), plan, halt.is_set):
                    line.send(("done", item.key, reason))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            line.send(("broken", _sendable(error)))


def _asked(line: Connection) -> Iterator[Any]:
    """Items, until there is a pause."""
    while True:
        line.send(("more",))
        item = line.recv()
        if item == PAUSE:
            return
        yield item


def _sendable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # some classes cannot be made again
        return RuntimeError(in_short(error))
