"""The rows of a file in LLaVA's format.

`[{"id", "image", "conversations": [{"from": "human" | "gpt", "value": "<image>\\n…"}]}]`; without "image", a row is
text only.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflmm.processor import IMAGE_TOKEN

HALF = re.compile("[\ud800-\udfff]")  # what is left where a text was cut in the middle of an emoji


@dataclass(frozen=True)
class Row:
    """One conversation: questions and answers in turns, a question first; the image, if any, belongs to the first
    question. `index`: its place in the file, from 0. `texts`: what is said, questions at even places."""

    index: int
    id: str
    image: Path | None
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used, and why. `index`: its place in the file, from 0."""

    index: int
    id: str
    error: str


def read_rows(path: Path, images: Path | None, plain: bool) -> tuple[list[Row], list[Skipped]]:
    """The rows of a JSON file, `images` being the folder that their paths begin in, and those that are malformed.
    `plain`: as `RowTokenizer` has it. Raises FileNotFoundError or ValueError if the file is not such a list."""
    rows, skipped = [], []
    for index, content in enumerate(_read_list(path)):
        name = str(content.get("id", index)) if isinstance(content, dict) else str(index)
        try:
            rows.append(_row(index, name, content, images, plain))
        except ValueError as error:
            skipped.append(Skipped(index, name, str(error)))
    return rows, skipped


def _read_list(path: Path) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. data is a JSON list of conversations in LLaVA's format.")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))  # programs on Windows begin with a mark
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from error
    if not isinstance(found, list):
        raise ValueError(f"{path} is not a list of conversations in LLaVA's format.")
    return found


def _row(index: int, name: str, content: Any, images: Path | None, plain: bool) -> Row:
    if not isinstance(content, dict) or not isinstance(content.get("conversations"), list):
        raise ValueError("there is no list of conversations")
    texts = _texts(content["conversations"])
    n_places = texts[0].count(IMAGE_TOKEN)
    if any(IMAGE_TOKEN in text for text in texts[1:]) or n_places > 1:
        raise ValueError(f"{IMAGE_TOKEN} may stand once, in the first question")
    image = content.get("image")
    if image is not None and not isinstance(image, str):
        raise ValueError("the image is not a path")
    if bool(image) != bool(n_places):
        raise ValueError(f"there is {'no ' if image else ''}{IMAGE_TOKEN} for {'the' if image else 'no'} image")
    if plain and (not image or len(texts) != 2):
        raise ValueError("the plain template takes an image and one answer")
    question = texts[0].replace(IMAGE_TOKEN, "").strip()
    return Row(index, name, (images or Path()) / image if image else None, (question, *texts[1:]))


def _texts(turns: list[Any]) -> list[str]:
    """What is said, in turns; an answer before the first question is left out, as LLaVA does."""
    for turn in turns:
        if not isinstance(turn, dict) or "from" not in turn:
            raise ValueError("a turn does not say who it is from")
        if turn["from"] not in ("human", "gpt"):
            raise ValueError(f"a turn is from {str(turn['from'])[:20]!r}, not from human or gpt")
        if not isinstance(turn.get("value"), str):
            raise ValueError("a turn's value is no text")
    if turns and turns[0]["from"] == "gpt":
        turns = turns[1:]
    if not turns or [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
        raise ValueError("human and gpt do not take turns")
    if not all(turn["value"].strip() for turn in turns):
        raise ValueError("a turn is empty")
    if any(HALF.search(turn["value"]) for turn in turns):
        raise ValueError("a turn holds half a character, a lone surrogate")
    return [turn["value"] for turn in turns]


def summary(skipped: Sequence[Skipped]) -> str:
    """The reasons, counted (`3 x no such file, 1 x a turn is empty`); without the names of files."""
    reasons = Counter(each.error.split(": ")[-1].split(" (")[0] for each in skipped)
    return ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
