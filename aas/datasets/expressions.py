"""What the datasets of given expressions have in common: words about an image, and the masks they stand for."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal

import typer

from aas.datasets.answers import Span
from aas.rle import Rle, compressed, empty, union

PLACE = "{expression}"  # in templates
# Options that several datasets have.
Say = Annotated[str, typer.Option(help="The answer that is given.")]
Sentences = Literal["first", "all", "random"]


@dataclass(frozen=True)
class Target:
    """A mask to be found. Pixels of `ignore` do not count. `kinds`: the parts of the whole that it is scored in."""

    mask: Rle
    ignore: Rle | None = None
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
        """Masks that are to be found."""
        return 1 if self.spans is None else len(self.spans)


@dataclass(frozen=True)
class Expressions:
    """What a reader found, and one line for each thing in the files that it could not use."""

    items: list[Expression]
    problems: list[str]


@dataclass(frozen=True, kw_only=True)
class ExpressionDataset(ABC):
    """A dataset of given expressions. Fields with a `typer.Option` are options of its commands, `aas expressions NAME`
    and `aas eval NAME`; its docstring is their help.

    `say`, `ask`: templates of the answer that is given, or of the question, which goes before; a dataset that lets a
    user change them declares them again with a `typer.Option`. `metrics`: names in `registry.EXPRESSION_METRICS`;
    `examples`: command lines without the name and the files that are written.
    """

    metrics: ClassVar[tuple[str, ...]] = ("referring",)
    examples: ClassVar[tuple[str, ...]] = ()

    say: str = PLACE
    ask: str | None = None

    def __post_init__(self) -> None:
        for option, template in (("--say", self.say), ("--ask", self.ask)):
            if template is not None and template.count(PLACE) != 1:
                raise ValueError(f"{option} {template!r}: it must have {PLACE} in it, once.")

    @abstractmethod
    def read(self) -> Expressions:
        """What the files hold. Raises ValueError or OSError where they are no files of this dataset."""

    def row(self, expression: Expression) -> dict[str, Any]:
        """A line for `aas infer-attn --answers`."""
        return given_row(expression, self.say) if self.ask is None else asked_row(expression, self.ask)


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


def mask_of(segmentation: Any, height: int, width: int) -> Rle:
    """COCO's polygons, run lengths (numbers or compressed), or a list of run lengths, as one compressed mask.

    Raises ValueError for what is no mask.
    """
    if segmentation == []:
        return empty((height, width))
    if isinstance(segmentation, list) and isinstance(segmentation[0], dict):
        return union([compressed(part, (height, width)) for part in segmentation])
    return compressed(segmentation, (height, width))


def chosen(sentences: Sequence[Any], which: Sentences, key: str | None) -> list[tuple[int, Any]]:
    """What is taken of the sentences of one thing, each with its number. `random` is one of them, always the same one
    for a `key`."""
    numbered = list(enumerate(sentences))
    if which == "random" and numbered:
        return [Random(key).choice(numbered)]
    return numbered[:1] if which == "first" else numbered


def listed(words: Sequence[str]) -> tuple[str, tuple[Span, ...]]:
    """One text that names several things, "red box. green floor.", and the characters of each."""
    spans, start = [], 0
    for one in words:
        spans.append((start, start + len(one)))
        start += len(one) + 2
    return " ".join(f"{one}." for one in words), tuple(spans)


def concatenated(items: Sequence[Expression]) -> list[Expression]:
    """The expressions of each photograph as one text, called as the photograph is; texts whose phrases have places
    already stay as they are."""
    together: dict[str, list[Expression]] = {}
    for one in items:
        together.setdefault(one.image if one.spans is None else one.id, []).append(one)
    return [_one_text(some) for some in together.values()]


def _one_text(some: Sequence[Expression]) -> Expression:
    if some[0].spans is not None:
        return some[0]
    text, spans = listed([one.text for one in some])
    image = some[0].image
    return Expression(image, image, text, lambda: [target for one in some for target in one.read_targets()], spans)


def what_is_wrong(error: Exception) -> str:
    """Of an entry that cannot be used, in words."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def without_duplicates(items: Sequence[Expression], problems: Sequence[str]) -> Expressions:
    """Of several expressions with one id the first; the others become problems."""
    first = {expression.id: expression for expression in reversed(items)}
    twice = [f"expression {one.id} is there twice" for one in items if first[one.id] is not one]
    return Expressions([one for one in items if first[one.id] is one], [*problems, *twice])
