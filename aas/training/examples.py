"""A training's examples, one at a time: from the cache, or captured anew whenever they are needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from aas.training.cache import Capturer, Example, Unusable, read_example, usable
from aas.training.data import Lesson


class Examples(Protocol):
    """Numbered from 0. One that is asked for is made; `Unusable` where it cannot be learned from."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Example: ...


class Cached:
    """Those of files."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> Example:
        return read_example(self.paths[i])


class Live:
    """Captured in the same pass, nothing is kept. `failures`: by key, what could not be learned from so far."""

    def __init__(self, lessons: Sequence[Lesson], capturer: Capturer):
        self.lessons, self.capturer = lessons, capturer
        self.failures: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.lessons)

    def __getitem__(self, i: int, /) -> Example:
        lesson = self.lessons[i]
        try:
            with usable(lesson.key):
                return self.capturer(lesson.read())
        except Unusable as error:
            self.failures[lesson.key] = str(error)
            raise


def next_usable(examples: Examples, i: int) -> Example:
    """The i-th, or the first behind it that can be learned from. ValueError where none can."""
    problem = None
    for k in range(len(examples)):
        try:
            return examples[(i + k) % len(examples)]
        except Unusable as error:
            problem = error
    raise ValueError(f"Nothing to learn from: {problem}.")
