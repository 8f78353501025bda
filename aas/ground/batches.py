"""Many requests, through the loop of every stage."""

from collections.abc import Iterable, Iterator, Sequence

from aas.engine.stage import Stage
from aas.ground.request import Asked, Request
from aas.ground.steps import Steps
from aas.grounding import Grounding


class GroundingError(ValueError):
    """What stands in a list of groundings for an image that could not be grounded; the message says why."""


class ByGrounder(Stage[Request, Asked, Grounding]):
    """The two steps that a grounder makes of a request; a subclass says what becomes of the grounding."""

    window_batches = 4

    def __init__(self, grounder: Steps):
        self.grounder = grounder

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        return self.grounder.fed(items)

    def prepare(self, item: Request) -> Asked:
        return self.grounder.prepare(item)

    def length(self, prepared: Asked) -> int:
        return prepared.prepared.length

    def compute(self, batch: Sequence[Asked]) -> list[Grounding]:
        return self.grounder.compute(batch)


class Collecting(ByGrounder):
    """Keeps groundings, and what went wrong, by the requests' keys."""

    def __init__(self, grounder: Steps, is_given: bool):
        super().__init__(grounder)
        self.is_given = is_given
        self.found: dict[str, Grounding | GroundingError] = {}

    def fed(self, items: Iterable[Request]) -> Iterator[tuple[Request, Exception | None]]:
        return ((item, None) for item in items) if self.is_given else super().fed(items)

    def finish(self, item: Request, result: Grounding) -> None:
        self.found[item.key] = result
