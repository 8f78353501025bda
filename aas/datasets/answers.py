"""Answers that are given, one JSON line each: `{"image": …, "answer": …}`."""

import json
from dataclasses import dataclass
from pathlib import Path

from aas.datasets.sources import ImageSource


@dataclass(frozen=True)
class GivenAnswer:
    """`token_ids`, where another engine wrote the answer, are taken as they are; otherwise `text` is tokenized.

    `question` is None where the run's own question holds.
    """

    text: str
    token_ids: tuple[int, ...] | None = None
    question: str | None = None


def read_answers(path: Path) -> dict[str, GivenAnswer]:
    """By the image's path as written. Raises ValueError with the line's number for what cannot be used."""
    answers: dict[str, GivenAnswer] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where} is not valid JSON ({error}).") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise ValueError(f'{where}: an object with "image" and "answer" is needed.')
        text, token_ids = entry.get("answer", ""), entry.get("token_ids")
        if not isinstance(text, str) or not (text.strip() or token_ids):
            raise ValueError(f"{where}: the answer is empty.")
        if token_ids is not None and not all(isinstance(i, int) and i >= 0 for i in token_ids):
            raise ValueError(f"{where}: token_ids must be a list of token numbers.")
        if entry["image"] in answers:
            raise ValueError(f"{where}: {entry['image']} has two answers; one run holds one for each image.")
        answers[entry["image"]] = GivenAnswer(text, tuple(token_ids) if token_ids else None, entry.get("question"))
    if not answers:
        raise ValueError(f"{path} holds no answers.")
    return answers


def match_answers(
    sources: list[ImageSource], answers: dict[str, GivenAnswer]
) -> tuple[list[tuple[ImageSource, GivenAnswer]], list[str]]:
    """The images that have an answer, with it; and the names in `answers` that are no image of the run.

    An answer names its image by its key or its path.
    """
    matched, used = [], set()
    for source in sources:
        for name in (source.key, source.path.as_posix(), str(source.path.resolve())):
            if name in answers:
                matched.append((source, answers[name]))
                used.add(name)
                break
    return matched, [name for name in answers if name not in used]
