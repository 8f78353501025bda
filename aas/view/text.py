"""Words of a model or a user, made fit to be shown: harmless characters, pieces per phrase, wrapped lines."""

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import ImageFont

from aas.records import GroundedPhrase
from aas.text import harmless

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_ASCII_FOR = str.maketrans({"\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2022": "-", "\u00d7": "x", "\u2032": "'"})
_INVISIBLE = frozenset({"Mn", "Me", "Cf"})


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


def font_of(size_px: float) -> Font:
    """The TrueType font inside Pillow: the same picture on every machine."""
    return _font(max(6, round(size_px)))


@functools.lru_cache(maxsize=32)
def _font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """The text as Pillow's font can draw it: letters lose their accents, invisible characters go.

    What remains unknown to the font (Chinese, emoji) stays and is drawn as an empty box each.
    """
    known = (_ascii_or_same(c) for c in harmless(text).translate(_ASCII_FOR))
    return "".join(known)


def one_line(text: str) -> str:
    """`drawable`, with single spaces."""
    return " ".join(drawable(text).split())


def _ascii_or_same(character: str) -> str:
    if unicodedata.category(character) in _INVISIBLE:
        return ""
    decomposed = unicodedata.normalize("NFKD", character)
    letters = "".join(c for c in decomposed if unicodedata.category(c) not in _INVISIBLE)
    return letters if letters.isascii() else character


def width_px(text: str, font: Font) -> float:
    return font.getlength(text)


def shortened(text: str, font: Font, limit_px: float) -> str:
    """The text, or as much of its beginning as fits into `limit_px` with an ellipsis; empty if nothing fits."""
    if width_px(text, font) <= limit_px:
        return text
    for length in range(len(text) - 1, 0, -1):
        candidate = text[:length].rstrip() + "…"
        if width_px(candidate, font) <= limit_px:
            return candidate
    return ""


def wrapped(pieces: Sequence[Piece], font: Font, limit_px: float) -> list[list[Piece]]:
    """Lines no wider than `limit_px`, broken at spaces; words that are wider are broken anywhere."""
    lines: list[list[Piece]] = [[]]
    x = 0.0
    for word in _words(pieces):
        advance = sum(width_px(piece.text, font) for piece in word)
        if word[0].text == "\n":
            lines.append([])
            x = 0.0
            continue
        if x + advance > limit_px and lines[-1] and not word[0].text.isspace():
            lines.append([])
            x = 0.0
        if advance > limit_px:
            x = _break_word(word, lines, font, limit_px)
        elif x or not word[0].text.isspace():
            lines[-1].extend(word)
            x += advance
    return [_merged(line) for line in lines]


def _words(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Words and spaces in order; a word of several phrases ("dog-sled", "cat's") is several pieces."""
    words: list[list[Piece]] = []
    glue = False
    for piece in pieces:
        for text in re.findall(r"\n|[^\S\n]+|\S+", drawable(piece.text)):
            atom = Piece(" " if text.isspace() and text != "\n" else text, piece.phrase)
            if glue and not text.isspace():
                words[-1].append(atom)
            else:
                words.append([atom])
            glue = not text.isspace()
    return words


def _break_word(word: Sequence[Piece], lines: list[list[Piece]], font: Font, limit_px: float) -> float:
    x = 0.0
    for piece in word:
        for character in piece.text:
            advance = width_px(character, font)
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
