"""What a person reads of an answer: its words without markup, each character with its place in the answer."""

import re
from collections.abc import Callable
from dataclasses import dataclass

Span = tuple[int, int]
Instead = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Reading:
    """Words for a parser; `places`: of each character, the half-open range of the answer that it stands for."""

    text: str
    places: tuple[Span, ...]

    @classmethod
    def of(cls, text: str) -> "Reading":
        """All of a text."""
        return cls(text, tuple((i, i + 1) for i in range(len(text))))

    def without(self, pattern: re.Pattern[str], instead: Instead = "") -> "Reading":
        """Every match taken out but for the first group where the pattern has one, else `instead`: a character or
        none."""
        texts: list[str] = []
        places: list[Span] = []
        end = 0
        for match in pattern.finditer(self.text):
            texts.append(self.text[end : match.start()])
            places += self.places[end : match.start()]
            end = match.end()
            if pattern.groups:
                kept = slice(*match.span(1)) if match.group(1) is not None else slice(0, 0)
                texts.append(self.text[kept])
                places += self.places[kept]
            else:
                character = instead if isinstance(instead, str) else instead(match)
                texts.append(character)
                places += [self.span(*match.span())] * len(character)
        return Reading("".join([*texts, self.text[end:]]), (*places, *self.places[end:])) if end else self

    def marked(self, where: set[int], mark: str) -> "Reading":
        """With `mark`, a character that stands for nothing, in front of the characters `where`."""
        text = "".join(mark + c if i in where else c for i, c in enumerate(self.text))
        places: list[Span] = []
        for i, place in enumerate(self.places):
            places += [(place[0], place[0]), place] if i in where else [place]
        return Reading(text, tuple(places))

    def part(self, start: int, end: int) -> "Reading":
        """The words from character `start` to `end`, without the white space around them."""
        start, end = self.trimmed(start, end)
        return Reading(self.text[start:end], self.places[start:end])

    def trimmed(self, start: int, end: int) -> Span:
        """The range from `start` to `end` without the white space at its ends."""
        text = self.text[start:end]
        first = start + len(text) - len(text.lstrip())
        return first, first + len(text.strip())

    def span(self, start: int, end: int) -> Span:
        """Where in the answer the characters from `start` to `end` are."""
        return self.places[start][0], self.places[end - 1][1]

    def runs(self, start: int, end: int) -> list[Span]:
        """The same without what was taken out in between, and without the white space beside that."""
        breaks = [i for i in range(start + 1, end) if self.places[i][0] > self.places[i - 1][1]]
        pieces = zip([start, *breaks], [*breaks, end], strict=True)
        return [self.span(*piece) for piece in (self.trimmed(*both) for both in pieces) if piece[0] < piece[1]]
