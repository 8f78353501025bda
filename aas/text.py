"""Words of a model, a file or a user: read as any editor wrote them, shown without what could do harm."""

import codecs
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

# They turn the reading direction of what follows: with them a text can pretend to be another one.
_DIRECTION_MARKS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


HALF = re.compile("[\ud800-\udfff]")  # what is left where a text was cut in the middle of an emoji


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of one that a program on Windows marked as UTF-16; its mark is no part of it.

    Raises ValueError, which names the file, for what is no such text.
    """
    return text_of(path.read_bytes(), path)


def text_of(content: bytes, path: Path) -> str:
    """As `read_text`, of the bytes of a file that were read already."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8.") from error


def read_lines(path: Path) -> list[str]:
    r"""The lines of a text file, which end with \n or \r\n only: `str.splitlines` also breaks words at U+2028."""
    return [line.removesuffix("\r") for line in read_text(path).split("\n")]


def of_json(text: str) -> Any:
    """What a JSON text says; ValueError for what is none, also for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_at(text: str, where: str) -> Any:
    """As `of_json`, for a text that stands `where`, which the ValueError says."""
    try:
        return of_json(text)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON ({error}).") from error


def harmless(text: str) -> str:
    """Without control characters (new lines and tabs stay), lone surrogates and direction overrides."""
    return "".join(c for c in text if c in "\n\t" or not _is_harmful(c))


def _is_harmful(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"} or character in _DIRECTION_MARKS
