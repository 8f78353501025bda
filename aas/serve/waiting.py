"""The place of a question in the queue. gradio's own, which is first come, first served, does not tell our page."""

import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock

MAX_WAITING = 32  # questions in the queue; gradio takes no more
FORGOTTEN_SECONDS = 5.0  # a page asks more often; one that does not was closed, or its question stopped


class Waiting:
    """Questions that wait, in the order in which their pages first wanted to know their place; and who is answered."""

    def __init__(self) -> None:
        self._last_seen: dict[Hashable, float] = {}
        self._answered: Hashable | None = None
        self._over: deque[Hashable] = deque(maxlen=2 * MAX_WAITING)
        self._changing = Lock()

    def before(self, question: Hashable) -> int | None:
        """How many are answered before this one, which now is known to wait; 0 for the one that is answered, None for
        one that was. ValueError where so many wait that it was not taken."""
        now = time.monotonic()
        with self._changing:
            if question == self._answered:
                return 0
            if question in self._over:
                return None
            for one in [one for one, seen in self._last_seen.items() if now - seen > FORGOTTEN_SECONDS]:
                del self._last_seen[one]
            if question not in self._last_seen and len(self._last_seen) >= MAX_WAITING:
                raise ValueError(f"{MAX_WAITING} questions wait already: ask again in a while.")
            self._last_seen[question] = now
            return list(self._last_seen).index(question) + (self._answered is not None)

    @contextmanager
    def answered(self, question: Hashable) -> Iterator[None]:
        """While this one is."""
        with self._changing:
            self._last_seen.pop(question, None)
            self._answered = question
        try:
            yield
        finally:
            with self._changing:
                self._over.append(question)
                if self._answered == question:
                    self._answered = None
