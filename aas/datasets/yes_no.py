"""Questions that have yes or no for an answer, as POPE's and RePOPE's files have them, one JSON line each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas.spellings import id_text
from aas.text import HALF, of_json, read_lines

LABELS = {"yes": True, "no": False}


@dataclass(frozen=True)
class Question:
    """`image`: a file's name; `is_yes`: what is right; `setting`: how the question was chosen, empty if not said."""

    image: str
    text: str
    is_yes: bool
    setting: str = ""


def read_questions(path: Path) -> list[Question]:
    """In the order of the file: lines `{"image": …, "text": …, "label": "yes"}`, with `setting` or without.

    Raises ValueError with the line's number for what cannot be used.
    """
    numbered = [(i, line) for i, line in enumerate(read_lines(path), start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"{path}: no questions.")
    return [_question(line, f"{path}, line {i}") for i, line in numbered]


def _question(line: str, where: str) -> Question:
    try:
        entry = of_json(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}).") from error
    if not isinstance(entry, dict):
        raise ValueError(f'{where} is no object {{"image": …, "text": …, "label": …}}.')
    label = entry.get("label")
    is_yes = LABELS.get(label.strip().lower()) if isinstance(label, str) else None
    if is_yes is None:
        raise ValueError(f"{where}: the label is {label!r}, neither yes nor no.")
    setting = entry.get("setting")
    name = setting if isinstance(setting, str) else id_text(setting) or ""
    return Question(_words(entry, "image", where), _words(entry, "text", where), is_yes, name)


def _words(entry: dict[str, Any], name: str, where: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str) or not value.strip() or HALF.search(value):
        raise ValueError(f'{where}: "{name}" is missing, or no text.')
    return value
