"""Which worker has which items, and what becomes of those that a dead one had."""

from collections import Counter, deque
from collections.abc import Hashable, Sequence
from typing import Generic

from aas.engine.stage import I

MOST_DEATHS = 3  # of workers that had an item, until it is given up
POISON = f"it was in the hands of {MOST_DEATHS} workers that died, in the end alone; it is given up"


class Ledger(Generic[I]):
    """Hands items out, each to one worker at a time. What a dead worker had is suspect: it is handed out again at the
    end, each item to a worker that has nothing else, so that one that kills its workers takes no other along."""

    def __init__(self, items: Sequence[I]):
        self.waiting, self.suspects = deque(items), deque[I]()
        self.deaths = Counter[str]()
        self.taken: dict[Hashable, dict[str, I]] = {}

    @property
    def is_open(self) -> bool:
        """Whether any item has no outcome yet."""
        return bool(self.waiting or self.suspects or any(self.taken.values()))

    def next_for(self, worker: Hashable) -> I | None:
        """An item for a worker; None where it must wait, or finish what it has."""
        mine = self.taken.setdefault(worker, {})
        if any(key in self.deaths for key in mine):
            return None
        if self.waiting:
            item = self.waiting.popleft()
        elif self.suspects and not mine:
            item = self.suspects.popleft()
        else:
            return None
        mine[item.key] = item
        return item

    def done(self, worker: Hashable, key: str) -> I:
        """The item of that key, which has an outcome."""
        return self.taken[worker].pop(key)

    def died(self, worker: Hashable) -> list[I]:
        """Takes back what a worker had; of these items those that are given up."""
        lost = list(self.taken.pop(worker, {}).values())
        self.deaths.update(item.key for item in lost)
        self.suspects += [item for item in lost if self.deaths[item.key] < MOST_DEATHS]
        return [item for item in lost if self.deaths[item.key] >= MOST_DEATHS]
