"""ReasonSeg (arXiv 2308.00692): beside each photograph a JSON file with questions and the polygons of the answer.

`text` is a list of questions, or of phrases where `is_sentence` is false; `shapes` a list of polygons with the label
`target`, `ignore` (does not count) or `flag` (means nothing). https://github.com/dvlab-research/LISA
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import cv2
import numpy as np
import typer

from aas import rle
from aas.choices import check
from aas.datasets.expressions import (
    Expression,
    ExpressionDataset,
    Expressions,
    Sentences,
    Target,
    chosen,
    what_is_wrong,
)
from aas.images import known_suffixes, read_image
from aas.spellings import flag_of

IGNORED = 255


@dataclass(frozen=True, kw_only=True)
class ReasonSeg(ExpressionDataset):
    """ReasonSeg: questions, which the model answers; pixels that are to be ignored do not count."""

    examples: ClassVar = ("--data ReasonSeg/val",)

    data: Annotated[Path, typer.Option(help="Folder of NAME.jpg and NAME.json, for instance ReasonSeg/val.")]
    sentences: Annotated[Sentences, typer.Option(help="Of each photograph; the first is all that is published.")] = (
        "first"
    )
    ask: Annotated[str | None, typer.Option(help="About a phrase that is no sentence.")] = (
        "What is {expression} in this image?"
    )
    instruction: Annotated[str, typer.Option(help="A line behind each question.")] = ""

    def row(self, expression: Expression) -> dict[str, Any]:
        """A question, and the instruction behind it."""
        row = super().row(expression)
        if self.instruction.strip() and "question" in row:
            row["question"] += f"\n{self.instruction}"
        return row

    def read(self) -> Expressions:
        """Sorted by name."""
        check("--sentences", self.sentences, Sentences)
        if not self.data.is_dir():
            raise FileNotFoundError(f"{self.data}: no such folder.")
        known = known_suffixes()
        photographs = {path.stem: path for path in sorted(self.data.iterdir()) if path.suffix.lower() in known}
        items: list[Expression] = []
        problems = [f"{path.name}: no JSON file" for path in photographs.values() if not _json(path).is_file()]
        for path in sorted(self.data.glob("*.json")):
            photograph = photographs.get(path.stem)
            if photograph is None:
                problems.append(f"{path.name}: no photograph of that name")
                continue
            try:
                items += _questions(path, photograph, self.sentences)
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"{path.name}: {what_is_wrong(error)}")
        if not items:
            raise ValueError(f"{self.data} holds no annotations of ReasonSeg (NAME.json beside NAME.jpg).")
        return Expressions(items, problems)


def _questions(path: Path, photograph: Path, sentences: Sentences) -> list[Expression]:
    annotation = _annotation(path)
    read = partial(_targets, photograph, annotation["shapes"])
    is_question = annotation["is_sentence"]
    return [
        Expression(f"{path.stem}_{number}", photograph.name, text.strip(), read, is_question=is_question)
        for number, text in chosen(annotation["text"], sentences, path.stem)
    ]


def _json(photograph: Path) -> Path:
    return photograph.with_suffix(".json")


def _annotation(path: Path) -> dict[str, Any]:
    """`text` as a list of words, `shapes` without flags, `is_sentence`."""
    content = path.read_bytes()
    try:
        annotation = json.loads(content)
    except ValueError:
        try:
            annotation = json.loads(content.decode("cp1252"))  # some of the published files are
        except ValueError as error:
            raise ValueError(f"not valid JSON ({error})") from error
    if not isinstance(annotation, dict) or not isinstance(annotation.get("shapes"), list):
        raise ValueError("it has no list `shapes`")
    text = annotation.get("text")
    text = [text] if isinstance(text, str) else text
    if not isinstance(text, list) or not text or not all(isinstance(one, str) and one.strip() for one in text):
        raise ValueError("it has no `text`")
    shapes = [shape for shape in annotation["shapes"] if str(shape["label"]).lower() != "flag" and shape["points"]]
    is_sentence = flag_of(annotation.get("is_sentence", True))
    if is_sentence is None:
        raise ValueError(f"is_sentence is {annotation['is_sentence']!r}, neither true nor false")
    return {"text": text, "shapes": shapes, "is_sentence": is_sentence}


def _targets(photograph: Path, shapes: list[dict[str, Any]]) -> list[Target]:
    labels = drawn(shapes, read_image(photograph).shape[:2])
    return [Target(rle.of_mask(labels == 1), rle.of_mask(labels == IGNORED))]


def drawn(shapes: list[dict[str, Any]], size_hw: tuple[int, ...]) -> np.ndarray:
    """uint8 [H, W]: 1 on the target, IGNORED, or 0. Large polygons first, so that small ones lie on top of them; of
    two of the same size the later one first, as published. Outlines belong to their polygon; corners are cut to whole
    pixels."""
    polygons = [np.array(shape["points"], np.float64).astype(np.int32).reshape(1, -1, 2) for shape in shapes]
    areas = [int(_filled(np.zeros(size_hw, np.uint8), polygon, 1).sum()) for polygon in polygons]
    labels = np.zeros(size_hw, np.uint8)
    for i in np.argsort(areas, kind="stable")[::-1]:
        value = IGNORED if "ignore" in str(shapes[i]["label"]).lower() else 1
        _filled(labels, polygons[i], value)
    return labels


def _filled(canvas: np.ndarray, polygon: np.ndarray, value: int) -> np.ndarray:
    cv2.polylines(canvas, list(polygon), True, value, 1)
    cv2.fillPoly(canvas, list(polygon), value)
    return canvas
