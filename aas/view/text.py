"""Words of a model or a user, made fit to be shown: harmless characters, pieces per phrase, wrapped lines."""

import bisect
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from aas.records import GroundedPhrase
from aas.text import harmless
from aas.view.writing import clusters, width_px

_JOINERS = "\u200c\u200d"  # they shape their neighbours
# Chinese and Japanese may break between any two characters, but no line begins with a sign that ends something.
_IDEOGRAPH = "[\u3005-\u3007\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_ENDING = "[\u3001\u3002\u3009\u300b\u300d\u300f\u3011\uff01\uff09\uff0c\uff0e\uff1a\uff1b\uff1f]"
_ATOM = re.compile(rf"\n|[^\S\n]+|{_IDEOGRAPH}?{_ENDING}+|{_IDEOGRAPH}|(?:(?!{_IDEOGRAPH}|{_ENDING})\S)+")


@dataclass(frozen=True)
class Piece:
    """Characters that belong together; `phrase` is the index of their phrase or None."""

    text: str
    phrase: int | None = None


def pieces_of(text: str, phrases: Sequence[GroundedPhrase]) -> list[Piece]:
    """The text cut where phrases begin and end. Where they overlap, a character belongs to the shortest phrase.

    Spans outside of the text are clipped. The pieces are `harmless`; joined they are the harmless text.
    """
    owner: list[int | None] = [None] * len(text)
    longest_first = sorted(range(len(phrases)), key=lambda i: phrases[i].span[0] - phrases[i].span[1])
    for index in longest_first:
        start, end = phrases[index].span
        for position in range(max(0, start), min(end, len(text))):
            owner[position] = index
    cuts = [i for i in range(1, len(text)) if owner[i] != owner[i - 1]]
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True) if text else []
    return [Piece(harmless(text[a:b]), owner[a]) for a, b in bounds]


def drawable(text: str) -> str:
    """The text without what leaves no ink: harmful characters, marks of direction, choices between an emoji's looks."""
    return "".join(c for c in harmless(text) if c in _JOINERS or not _is_invisible(c))


def _is_invisible(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or unicodedata.category(character) == "Cf"


def one_line(text: str) -> str:
    """`drawable`, with single spaces."""
    return " ".join(drawable(text).split())


def shortened(text: str, size_px: int, limit_px: float) -> str:
    """The text, or as much of its beginning as fits into `limit_px` with an ellipsis; empty if nothing fits."""
    if width_px(text, size_px) <= limit_px:
        return text
    parts = clusters(text)

    def beginning(n_parts: int) -> str:
        return "".join(parts[:n_parts]).rstrip() + "…"

    # A word can be very long: halving measures it a dozen times, letter after letter thousands of times.
    n_parts = bisect.bisect_right(range(len(parts)), limit_px, key=lambda n: width_px(beginning(n), size_px)) - 1
    return beginning(n_parts) if n_parts > 0 else ""


def wrapped(pieces: Sequence[Piece], size_px: int, limit_px: float) -> list[list[Piece]]:
    """Lines no wider than `limit_px`, broken at spaces; words that are wider are broken anywhere."""
    lines: list[list[Piece]] = [[]]
    x = 0.0
    for word in _words(pieces):
        if word[0].text == "\n":
            lines.append([])
            x = 0.0
            continue
        advance = sum(width_px(piece.text, size_px) for piece in word)
        if x + advance > limit_px and lines[-1] and not word[0].text.isspace():
            lines.append([])
            x = 0.0
        if advance > limit_px:
            x = _break_word(word, lines, size_px, limit_px)
        elif x or not word[0].text.isspace():
            lines[-1].extend(word)
            x += advance
    return [_merged(line) for line in lines]


def _words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Words and spaces in order; a word of several phrases ("dog-sled", "cat's") is several pieces."""
    words: list[list[Piece]] = []
    before = " "
    for piece in pieces:
        for text in _ATOM.findall(drawable(piece.text)):
            atom = Piece(" " if text.isspace() and text != "\n" else text, piece.phrase)
            if _belong_together(before, text):
                words[-1].append(atom)
            else:
                words.append([atom])
            before = text
    return words


def _belong_together(before: str, after: str) -> bool:
    if before.isspace() or after.isspace():
        return False
    return bool(re.match(_ENDING, after)) or not (
        re.match(_IDEOGRAPH, after) or re.search(f"(?:{_IDEOGRAPH}|{_ENDING})$", before)
    )


def _break_word(word: Sequence[Piece], lines: list[list[Piece]], size_px: int, limit_px: float) -> float:
    x = 0.0
    for piece in word:
        for character in clusters(piece.text):
            advance = width_px(character, size_px)
            if x and x + advance > limit_px:
                lines.append([])
                x = 0.0
            lines[-1].append(Piece(character, piece.phrase))
            x += advance
    return x


def _merged(line: Sequence[Piece]) -> list[Piece]:
    """Neighbours of one phrase become one piece; the space at the end of the line goes."""
    merged: list[Piece] = []
    for piece in line[:-1] if line and line[-1].text.isspace() else line:
        if merged and merged[-1].phrase == piece.phrase:
            merged[-1] = Piece(merged[-1].text + piece.text, piece.phrase)
        else:
            merged.append(piece)
    return merged
