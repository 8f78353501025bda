"""Tables of how well masks of given expressions fit: one target, and the figures of all."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aas.datasets.expressions import Expression
from aas.evaluations import report
from aas.evaluations.several import Figures
from aas.metrics.overlap import MaskPair


@dataclass(frozen=True)
class Scored:
    """One target: the `index`-th of an expression; `problem`: why there is no mask to compare, if there is none."""

    expression: Expression
    index: int
    pair: MaskPair
    problem: str = ""


def as_text(content: dict[str, Any]) -> str:
    """A Markdown table of the figures with their intervals, and a line of counts."""
    (found,) = figures(content).values()
    rows = [[name, report.cell(*one)] for name, one in found.items()]
    return f"{report.markdown(['figure', 'value'], rows)}\n\n{in_words(content['counts'])}."


def figures(content: Mapping[str, Any]) -> Figures:
    found = {name: value for name, value in content.items() if value is None or isinstance(value, float)}
    return {"expressions": {name: (value, content["intervals"].get(name)) for name, value in found.items()}}


def in_words(counts: Mapping[str, int]) -> str:
    return (
        f"{counts['masks']} masks of {counts['expressions']} expressions in {counts['images']} images; "
        f"{counts['not_predicted']} not predicted (they count 0), {counts['unusable']} unusable (left out), "
        f"{counts['extra']} results of others"
    )


def as_csv(scored: Sequence[Scored]) -> str:
    """One line for each target."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "image", "words", "kinds", "intersection", "union", "iou", "problem"])
    for one in scored:
        expression, found = one.expression, one.pair.overlap
        words = expression.text[slice(*expression.spans[one.index])] if expression.spans else expression.text
        kinds = " ".join(sorted(one.pair.kinds))
        writer.writerow(
            [expression.id, expression.image, words, kinds, found.intersection, found.union, found.iou, one.problem]
        )
    return text.getvalue()
