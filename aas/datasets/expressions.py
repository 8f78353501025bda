"""What the datasets of given expressions have in common: words about an image, and the masks they stand for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from aas.datasets.answers import Span

RunLengths = dict[str, Any]  # COCO's, compressed: {"size": [height, width], "counts": text}
PLACE = "{expression}"  # in templates


@dataclass(frozen=True)
class Target:
    """A mask to be found. Pixels of `ignore` do not count. `kinds`: the parts of the whole that it is scored in."""

    mask: RunLengths
    ignore: RunLengths | None = None
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Expression:
    """Words about one image. `id` is unique in the dataset, `image` a path relative to the folder of images.

    `spans`: the half-open character ranges of `text` that name things, one for each target; None where `text` asks for
    a thing (`is_question`) or names it as a whole. `read_targets` reads or draws the masks, one for each span (or one);
    it raises ValueError or OSError where it cannot.
    """

    id: str
    image: str
    text: str
    read_targets: Callable[[], list[Target]]
    spans: tuple[Span, ...] | None = None
    is_question: bool = False

    @property
    def n_targets(self) -> int:
        return 1 if self.spans is None else len(self.spans)


@dataclass(frozen=True)
class Expressions:
    """What a reader found, and one line for each thing in the files that it could not use."""

    items: list[Expression]
    problems: list[str]


def given_row(expression: Expression, template: str = PLACE) -> dict[str, Any]:
    """A line for `aas infer-attn --answers`: the words are the answer, put into `template` where they are one name."""
    before = "" if expression.spans else template.partition(PLACE)[0]
    answer = expression.text if expression.spans else template.replace(PLACE, expression.text)
    spans = expression.spans or ((0, len(expression.text)),)
    moved = [[start + len(before), end + len(before)] for start, end in spans]
    return {"id": expression.id, "image": expression.image, "answer": answer, "spans": moved}


def asked_row(expression: Expression, template: str) -> dict[str, Any]:
    """A line for `aas infer-attn --answers` without an answer: a question about the thing, by `template` unless the
    words are a question already."""
    question = expression.text if expression.is_question else template.replace(PLACE, expression.text)
    return {"id": expression.id, "image": expression.image, "question": question}


def checked_template(template: str, option: str) -> str:
    if template.count(PLACE) != 1:
        raise ValueError(f"{option} {template!r}: it must have {PLACE} in it, once.")
    return template


def run_lengths(mask: np.ndarray) -> RunLengths:
    """Of a bool or 0/1 mask [H, W]."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def chosen_sentences(sentences: Sequence[Any], which: str) -> Iterator[tuple[int, Any]]:
    """Numbered; `which`: `first` or `all`."""
    if which not in ("first", "all"):
        raise ValueError(f"--sentences {which!r}: give first or all.")
    yield from enumerate(sentences[:1] if which == "first" else sentences)


def without_duplicates(items: Sequence[Expression], problems: Sequence[str]) -> Expressions:
    """Of several expressions with one id the first; the others become problems."""
    first = {expression.id: expression for expression in reversed(items)}
    twice = [f"expression {one.id} is there twice" for one in items if first[one.id] is not one]
    return Expressions([one for one in items if first[one.id] is one], [*problems, *twice])
