"""Character ranges of texts that differ in white space."""

from bisect import bisect_left
from collections.abc import Sequence

Span = tuple[int, int]


def carried_over(spans: Sequence[Span], text: str, other: str) -> list[Span] | None:
    """The character ranges of `text` as those of `other`, a text that differs from it in white space only; None where
    it differs in more. No range may be of white space alone."""
    visible, there = ([i for i, c in enumerate(words) if not c.isspace()] for words in (text, other))
    if [text[i] for i in visible] != [other[i] for i in there]:
        return None
    carried = []
    for start, end in spans:
        first, last = bisect_left(visible, start), bisect_left(visible, end) - 1
        carried.append((there[first], there[last] + 1))
    return carried
