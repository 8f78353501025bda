"""An answer is told while it is written, by an iterator."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, TypeVar

from aas.grounding import Grounding
from aas.pointing.phrases import Pointed, PointingOptions, phrases_for, prompted
from aas.records import Answer, AttentionMaps, GroundedPhrase

if TYPE_CHECKING:
    from spacy.language import Language

Event = str | GroundedPhrase | Grounding
T = TypeVar("T")
Tell = Callable[[T], None]
_END: Any = object()


class _Left(BaseException):
    """Nobody listens any more. No Exception: what catches those is not to go on."""


def pulled(run: Callable[[Tell[T]], None]) -> Iterator[T]:
    """What `run`, in a thread of its own, tells, as it tells it. It never waits for who listens; what it raises is
    raised here, and when the iterator is closed it ends where it would tell more."""
    told: SimpleQueue[T] = SimpleQueue()
    left = Flag()

    def tell(event: T) -> None:
        if left.is_set():
            raise _Left
        told.put(event)

    with ThreadPoolExecutor(1, "aas-stream") as pool:
        running = pool.submit(run, tell)
        running.add_done_callback(lambda _: told.put(_END))
        try:
            while (event := told.get()) is not _END:
                yield event
            running.result()
        finally:
            left.set()


class Telling:
    """Tells an answer's characters as they are written, and each phrase when something is written behind it.

    `grounded` makes masks of what points; `image_hw` of the photograph, in pixels.
    """

    def __init__(
        self,
        tell: Tell[Event],
        pipeline: "Language",
        options: PointingOptions,
        image_hw: tuple[int, int],
        grounded: Callable[[Sequence[Pointed]], Sequence[GroundedPhrase]],
    ):
        self.tell, self.pipeline, self.options, self.image_hw = tell, pipeline, options, image_hw
        self.grounded = grounded
        self.n_written = 0  # characters that were told
        self.n_read = 0  # characters that were looked at for phrases
        self.spans: set[tuple[int, int]] = set()  # of the phrases that were told

    def hear(self, answer: Answer, maps: Callable[[], AttentionMaps] | None) -> None:
        """The answer so far, and what gives its tokens' maps."""
        self._write(answer.text)
        words = _whole_words(answer)
        if maps is None or len(words.text) == self.n_read:
            return
        self.n_read = len(words.text)
        phrases, _ = phrases_for(self.pipeline, words, self.options)
        closed = [one for one in phrases if one.span not in self.spans and one.span[1] < len(words.text)]
        if closed:
            attention = _first(maps(), len(words.token_ids))
            self._show(self.grounded(prompted(closed, words, attention, self.options, self.image_hw)))

    def end(self, grounding: Grounding) -> None:
        """What was not told yet, and the whole."""
        self._write(grounding.answer.text)
        self._show([one for one in grounding.phrases if one.span not in self.spans])
        self.tell(grounding)

    def _write(self, text: str) -> None:
        if len(text) > self.n_written:
            self.tell(text[self.n_written :])
            self.n_written = len(text)

    def _show(self, phrases: Sequence[GroundedPhrase]) -> None:
        for phrase in phrases:
            self.spans.add(phrase.span)
            self.tell(phrase)


def _whole_words(answer: Answer) -> Answer:
    """The part of an answer before its last white space: the word behind it may go on."""
    words = answer.text.rsplit(maxsplit=1)
    end = len(words[0]) if len(words) > 1 else 0
    n = sum(stop <= end for _, stop in answer.token_spans)
    spans = answer.token_spans[:n]
    return Answer(answer.question, answer.text[: spans[-1][1] if spans else 0], answer.token_ids[:n], spans)


def _first(attention: AttentionMaps, n: int) -> AttentionMaps:
    return AttentionMaps(attention.maps[:n], attention.view, attention.alignment, attention.source)
