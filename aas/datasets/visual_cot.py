"""Questions with the box of what answers them, as Visual CoT (arXiv 2403.16999) has them.

Three layouts, as JSON lines or as one JSON list: the benchmark's (`image`: a path, and `PATH###[x0, y0, x1, y1]`;
`conversations`), the training data's (`question`, `answer`, `possible_answers`, `image`, `bboxs`), and ours, which
is the same with `box`. Boxes are in pixels of the photograph. (In `conversations` the box is a share of the photograph
padded to a square: it is not read.)
"""

import json
import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from aas.records import BoxXyxy
from aas.spellings import id_text, number_of
from aas.text import HALF, json_at, read_text

WITH_BOX = re.compile(r"^(?P<image>.+)###(?P<box>\[.*\])$", re.DOTALL)
ASKS_FOR_BOX = "Please provide the bounding box coordinate of the region that can help you answer the question better."


@dataclass(frozen=True)
class BoxedQuestion:
    """`image`: a path; `answers`: right ones, none where that is not known; `box_xyxy`: in pixels, None where it is not
    known; `dataset`: the part of the file that it belongs to, empty if not said."""

    key: str
    image: str
    question: str
    answers: tuple[str, ...] = ()
    box_xyxy: BoxXyxy | None = None
    dataset: str = ""

    @property
    def fingerprint(self) -> str:
        """The same for questions that are asked alike."""
        return sha256(json.dumps([self.image, self.question, self.box_xyxy]).encode()).hexdigest()[:16]


def read_boxed_questions(path: Path) -> tuple[list[BoxedQuestion], list[str]]:
    """In the order of the file, and a line for each box that has no pixel, which counts as not known: published files
    have some.

    Raises ValueError, which says where, for what cannot be used.
    """
    found: dict[str, BoxedQuestion] = {}
    problems: list[str] = []
    for where, entry in _entries(path):
        try:
            question = _question(entry)
        except ValueError as error:
            raise ValueError(f"{where}: {error}.") from error
        if question.key in found:
            raise ValueError(f'{where}: {question.key} is there twice; give each question an "id" of its own.')
        if question.box_xyxy is not None and not _has_pixels(question.box_xyxy):
            problems.append(f"{where}: the box {list(question.box_xyxy)} of {question.key} has no pixel")
            question = replace(question, box_xyxy=None)
        found[question.key] = question
    if not found:
        raise ValueError(f"{path} holds no questions.")
    return list(found.values()), problems


def _has_pixels(box: BoxXyxy) -> bool:
    return box[0] < box[2] and box[1] < box[3]


def _entries(path: Path) -> list[tuple[str, Any]]:
    """What the file lists, each with where it stands."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        return [(f"{path}, entry {i}", entry) for i, entry in enumerate(json_at(text, str(path)), start=1)]
    numbered = [(f"{path}, line {i}", line) for i, line in enumerate(text.split("\n"), start=1)]
    return [(where, json_at(line, where)) for where, line in numbered if line.strip()]


def _question(entry: Any) -> BoxedQuestion:
    if not isinstance(entry, dict):
        raise ValueError('an object with "image" and "question" is needed')
    image, box = _image_and_box(entry)
    question, answers = _said(entry)
    dataset = id_text(entry.get("dataset")) or ""
    return BoxedQuestion(_key(entry, image, dataset), image, question, answers, box, dataset)


def _key(entry: dict[str, Any], image: str, dataset: str) -> str:
    """The benchmark numbers the questions of each dataset."""
    own, number = id_text(entry.get("id")), id_text(entry.get("question_id"))
    return own or ("-".join(filter(None, (dataset, number))) if number else image)


def _image_and_box(entry: dict[str, Any]) -> tuple[str, BoxXyxy | None]:
    image, box = entry.get("image"), entry.get("box")
    if isinstance(image, list) and image:
        with_box = WITH_BOX.match(image[-1]) if isinstance(image[-1], str) else None
        image, box = image[0], box if with_box is None else json_at(with_box["box"], "the box behind ###")
    elif isinstance(entry.get("bboxs"), list):
        return _words(image, "image"), _around([_box(one) for one in entry["bboxs"]])
    return _words(image, "image"), None if box is None else _box(box)


def _around(boxes: list[BoxXyxy]) -> BoxXyxy | None:
    """The smallest box around several."""
    if not boxes:
        return None
    x0, y0, x1, y1 = zip(*boxes, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def _box(value: Any) -> BoxXyxy:
    numbers = [number_of(one) for one in value] if isinstance(value, list) else []
    found = [float(one) for one in numbers if one is not None]
    if len(numbers) != 4 or len(found) != 4:
        raise ValueError(f"{value!r} is no box x0, y0, x1, y1 in pixels")
    return found[0], found[1], found[2], found[3]


def _said(entry: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The question, and its right answers."""
    told = entry.get("conversations")
    if isinstance(told, list) and told and all(isinstance(one, dict) for one in told):
        question, answer = told[0].get("value"), told[-1].get("value") if len(told) > 1 else None
        question = _words(question, "question").replace("<image>", "").replace(ASKS_FOR_BOX, "").strip()
    else:
        question, answer = entry.get("question"), entry.get("answer")
    further = entry.get("possible_answers")
    answers = [answer, *(further if isinstance(further, list) else [])]
    return _words(question, "question"), tuple(dict.fromkeys(_answer(one) for one in answers if one is not None))


def _answer(value: Any) -> str:
    """Numbers are answers too."""
    return _words(value if isinstance(value, str) else id_text(value), "answer")


def _words(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or HALF.search(value) or "\0" in value:
        raise ValueError(f'"{name}" is missing, or no text')
    return value.strip()
