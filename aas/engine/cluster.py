"""The items of a run on a Ray cluster: a worker is an actor, an item is in the hands of one.

Ray Core, not Ray Data: Data retries whole blocks (and drops good rows with a bad one, where it drops), while here who
had which item must be known, so that one that kills its workers is given up alone. Placing, queueing and finding out
who is dead are Ray's.
"""

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aas.engine.ledger import POISON, Ledger
from aas.engine.local import each
from aas.engine.stage import I, Job
from aas.engine.stopping import Stop
from aas.loading import in_short

AHEAD = 2  # hands that an actor has: one that it does, one that waits
WAIT_SECONDS = 1.0
MOST_BAD_STARTS = 3
ENVIRONMENT = {  # of Ray, where nothing else is said
    "RAY_AUTH_MODE": "disabled",  # else it writes a token into the home folder
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": "120",  # a busy machine takes longer than its 30 and 60 seconds
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_worker_register_timeout_seconds": "600",
}


class NoCluster(ConnectionError):
    """There is no Ray cluster, and none can be begun; the message says why."""


class Worker:
    """The actor: it loads the models once, then does what it is handed."""

    def __init__(self, job: Job):
        self.job = job

    def start(self) -> tuple[dict[str, Any], int]:
        """What is noted of the run, and how many items are one hand."""
        self.stage, self.plan, facts = self.job.begin()
        return dict(facts), self.plan.batch_size

    def do(self, items: Sequence[Any]) -> list[tuple[str, str | None]]:
        """Of each item its key, and why it failed, if it did."""
        return [(item.key, reason) for item, reason in each(self.stage, items, self.plan)]


@dataclass
class _Actor:
    """An actor as the driver sees it; `hands`: what Ray will tell of each hand; `size` of a hand, once it is known."""

    handle: Any
    starting: Any
    hands: list[Any]
    size: int = 0


def _has_enough(actor: _Actor) -> bool:
    """Whether it is there, and has all the hands that it may have."""
    return actor.size > 0 and len(actor.hands) >= AHEAD


@dataclass(frozen=True)
class Ray:
    """An engine (`engine/filling.py`): `least` actors, which join as the cluster has place for them; the run begins
    with the first. Up to `most`, another is asked for while all have enough to do. `address`: of the cluster; None
    begins one on this machine. `uses_gpu`: each actor has a GPU of its own, where the cluster has any."""

    address: str | None = None
    least: int = 1
    most: int = 1
    uses_gpu: bool = True

    def __call__(
        self, job: Job[I], items: Sequence[I], ready: Callable[[Mapping[str, Any]], None], stop: Stop
    ) -> Generator[tuple[I, str | None], None, None]:
        import ray

        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        driver = _Driver(self, job, ray, ready, stop)
        try:
            yield from driver.outcomes(items)
        finally:
            for actor in driver.actors:
                ray.kill(actor.handle)
            if started:
                ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Raises NoCluster."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # ConnectionError, ValueError, RuntimeError, a bare Exception: by what is missing
        what = f"no Ray cluster answers at {address}" if address else "no Ray cluster can be begun on this machine"
        raise NoCluster(f"{what}: {in_short(error)}") from error


class _Driver:
    """Hands items out to actors, and hears of them."""

    def __init__(self, engine: Ray, job: Job, ray: Any, ready: Callable[[Mapping[str, Any]], None], stop: Stop):
        self.ray, self.ready, self.stop, self.begun, self.bad_starts = ray, ready, stop, False, 0
        self.job = ray.put(job)
        n_gpus = 1 if engine.uses_gpu and ray.cluster_resources().get("GPU") else 0
        # Another is started by this driver, which knows what the dead one had.
        self.kind = ray.remote(num_gpus=n_gpus, num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self.least, self.most, self.actors = engine.least, engine.most, list[_Actor]()

    def outcomes(self, items: Sequence[I]) -> Iterator[tuple[I, str | None]]:
        """Of each item why it failed, if it did."""
        ledger = Ledger(items)
        self.actors = [self._started() for _ in range(min(self.least, len(items)))]
        while ledger.is_open and not (self.stop() and not any(actor.hands for actor in self.actors)):
            for actor in self.actors:
                self._hand_out(actor, ledger)
            if ledger.waiting and len(self.actors) < self.most and all(map(_has_enough, self.actors)):
                self.actors.append(self._started())
            waiting = {wanted: actor for actor in self.actors for wanted in self._awaited(actor)}
            for done in self.ray.wait(list(waiting), timeout=WAIT_SECONDS)[0]:
                yield from self._hear(waiting[done], done, ledger)

    def _started(self) -> _Actor:
        handle = self.kind.remote(self.job)
        return _Actor(handle, handle.start.remote(), [])

    def _awaited(self, actor: _Actor) -> list[Any]:
        return actor.hands if actor.size else [actor.starting]

    def _hand_out(self, actor: _Actor, ledger: Ledger) -> None:
        while actor.size and len(actor.hands) < AHEAD and not self.stop():
            hand: list[Any] = []
            while len(hand) < actor.size and (item := ledger.next_for(actor.handle)) is not None:
                hand.append(item)
            if not hand:
                return
            actor.hands.append(actor.handle.do.remote(hand))

    def _hear(self, actor: _Actor, done: Any, ledger: Ledger[I]) -> Iterator[tuple[I, str | None]]:
        if actor not in self.actors:  # it died with another of its hands
            return
        try:
            said = self.ray.get(done)
        except self.ray.exceptions.RayTaskError as error:  # what ends a run: no models, no disk
            raise error.cause if isinstance(error.cause, Exception) else error from None
        except self.ray.exceptions.RayError:  # it died, or its node did, or Ray killed it where memory was low
            yield from self._lose(actor, ledger)
            return
        if actor.size:
            actor.hands.remove(done)
            yield from ((ledger.done(actor.handle, key), reason) for key, reason in said)
        else:
            self._begin(actor, *said)

    def _begin(self, actor: _Actor, facts: Mapping[str, Any], size: int) -> None:
        actor.size, self.bad_starts = size, 0
        if not self.begun:  # the first says it for all
            self.ready(facts)
        self.begun = True

    def _lose(self, actor: _Actor, ledger: Ledger[I]) -> Iterator[tuple[I, str | None]]:
        """Another for a dead one; those of its items that are given up."""
        self.actors.remove(actor)
        self.ray.kill(actor.handle)  # should it live: its items are another's now
        self.bad_starts += not actor.size
        if self.bad_starts >= MOST_BAD_STARTS:
            raise ChildProcessError(
                "actors are killed while they load the models (by the system, where the memory does not suffice): try "
                "a smaller model, or nodes with more memory."
            )
        yield from ((item, f"{item.image}: {POISON}") for item in ledger.died(actor.handle))
        if ledger.is_open and not self.stop():
            self.actors.append(self._started())
