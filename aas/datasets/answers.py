"""Answers that are given, and questions of single images, one JSON line each: `{"image": …, "answer": …}`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from aas.datasets.sources import ImageSource
from aas.spellings import id_text, whole_of
from aas.text import HALF, json_at, read_lines

Span = tuple[int, int]


@dataclass(frozen=True)
class GivenAnswer:
    """One line: what is said, or asked, about an image.

    `token_ids`, where another engine wrote the answer, are taken as they are, and must write `text` where there is
    one; otherwise `text` is tokenized; where both
    are missing, the model answers. `question` is None where the run's own holds. `id` tells the lines of one image
    apart and names their items. `spans` are the characters of `text` that `aas segment expressions` finds masks for;
    None: what the answer is about.
    """

    image: str
    text: str = ""
    token_ids: tuple[int, ...] | None = None
    question: str | None = None
    id: str | None = None
    spans: tuple[Span, ...] | None = None

    @property
    def key(self) -> str:
        """What no other line of the file has."""
        return self.id or self.image

    @property
    def fingerprint(self) -> str:
        """The same for lines that ask the same."""
        asked = json.dumps([self.text, self.token_ids, self.question, self.spans])
        return sha256(asked.encode()).hexdigest()[:16]

    @property
    def is_asked(self) -> bool:
        """Whether the model answers."""
        return not self.text.strip() and self.token_ids is None


def read_answers(path: Path) -> list[GivenAnswer]:
    """In the order of the file. Raises ValueError with the line's number for what cannot be used.

    Either every line has an answer or none, since a batch is generated or replayed as a whole.
    """
    rows: dict[str, GivenAnswer] = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = _row(json_at(line, where), where)
        if row.key in rows:
            several = "" if row.id else "; give each line of an image an id of its own"
            raise ValueError(f"{where}: {row.key} is there twice{several}.")
        rows[row.key] = row
    if not rows:
        raise ValueError(f"{path} holds no answers.")
    if len({row.is_asked for row in rows.values()}) > 1:
        raise ValueError(f"{path}: some lines have an answer, some only a question; make two files of them.")
    return list(rows.values())


def _row(entry: Any, where: str) -> GivenAnswer:
    if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or not entry["image"].strip():
        raise ValueError(f'{where}: an object with "image" and "answer" is needed.')
    text, token_ids, question = entry.get("answer"), entry.get("token_ids"), entry.get("question")
    if question is not None and not (isinstance(question, str) and question.strip()):
        raise ValueError(f"{where}: the question is empty.")
    if text is None and not token_ids and question is None:
        raise ValueError(f"{where}: the answer is missing, and there is no question to answer.")
    if text is not None and not (isinstance(text, str) and (text.strip() or token_ids)):
        raise ValueError(f"{where}: the answer is empty.")
    for what, words in (("answer", text), ("question", question)):
        if words is not None and HALF.search(words):
            raise ValueError(f"{where}: the {what} holds half a character (a lone surrogate).")
        if words is not None and "\0" in words:
            raise ValueError(f"{where}: the {what} holds a character of no text (U+0000).")
    if "\0" in entry["image"]:
        raise ValueError(f"{where}: no file has such a name, {entry['image']!r}.")
    return GivenAnswer(
        entry["image"],
        text or "",
        None if token_ids is None else _token_ids(token_ids, where) or None,
        question,
        _name(entry.get("id"), where),
        _spans(entry.get("spans"), text or "", where),
    )


def _token_ids(token_ids: Any, where: str) -> tuple[int, ...]:
    found = [whole_of(one) for one in token_ids] if isinstance(token_ids, list) else [None]
    if not all(one is not None and 0 <= one < 2**31 for one in found):
        raise ValueError(f"{where}: token_ids must be a list of token numbers.")
    return tuple(one for one in found if one is not None)


def _name(value: Any, where: str) -> str | None:
    """A text stays as it is; a number is the same in every spelling."""
    name = value if isinstance(value, str) and value else id_text(value)
    if value is not None and not name:
        raise ValueError(f"{where}: the id must be a word or a number.")
    return name


def _spans(spans: Any, text: str, where: str) -> tuple[Span, ...] | None:
    if spans is None:
        return None
    if not text.strip():
        raise ValueError(f'{where}: "spans" are characters of the answer, and there is none.')
    try:
        pairs = tuple((_place(start), _place(end)) for start, end in spans)
    except (TypeError, ValueError, OverflowError):
        pairs = ((0, 0),)
    if not pairs or not all(0 <= start < end <= len(text) and text[start:end].strip() for start, end in pairs):
        raise ValueError(f'{where}: "spans" must be a list of [start, end], characters of the answer.')
    return pairs


def _place(value: Any) -> int:
    found = whole_of(value)
    if found is None:
        raise ValueError
    return found


def match_answers(
    sources: Sequence[ImageSource], rows: Sequence[GivenAnswer]
) -> tuple[list[tuple[ImageSource, GivenAnswer]], list[GivenAnswer]]:
    """The images that have an answer, with each of theirs; and the lines about no image of the run.

    A line names its image by its key or its path.
    """
    by_image: dict[str, list[GivenAnswer]] = {}
    for row in rows:
        by_image.setdefault(row.image, []).append(row)
    matched, used = [], set()
    for source in sources:
        mine = [row for name in dict.fromkeys(source.names) for row in by_image.get(name, ())]
        matched += [(source, row) for row in mine]
        used |= {row.key for row in mine}
    return matched, [row for row in rows if row.key not in used]
