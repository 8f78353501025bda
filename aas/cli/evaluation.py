"""`aas eval NAME` and `aas expressions NAME`: commands made of the registry's tables when they are asked for."""

from collections import ChainMap
from collections.abc import Callable
from dataclasses import make_dataclass

import typer

from aas import registry
from aas.cli.look import group
from aas.cli.options import command_of, examples, lazy_group

WORDING = ("say", "ask", "instruction")  # what was said to the model: masks are what they are
Command = tuple[Callable[..., None], str]


def _evaluation(name: str) -> Command:
    if name in registry.EXPRESSION_DATASETS:
        return _masks_of(name)
    options = registry.load(registry.EVALUATIONS, name, "evaluation")
    return command_of(options, options.run), examples(*options.examples)


def _masks_of(name: str) -> Command:
    from aas.evaluations.expression_masks import MaskOptions, evaluate

    dataset = registry.load(registry.EXPRESSION_DATASETS, name, "dataset")
    measures = (registry.load(registry.EXPRESSION_METRICS, one, "measure") for one in dataset.metrics)
    figures = " ".join(registry.summary(measure) for measure in measures)
    options = joined(dataset, MaskOptions, f"{registry.summary(dataset)}\n\nFigures: {figures}")
    lines = (f"aas eval {name} {line} --results masks --json scores.json" for line in dataset.examples[:1])
    return command_of(options, lambda given: evaluate(given, given), without=WORDING), examples(*lines)


def _rows_of(name: str) -> Command:
    from aas.datasets.rows import RowOptions, write_rows

    dataset = registry.load(registry.EXPRESSION_DATASETS, name, "dataset")
    options = joined(dataset, RowOptions, registry.summary(dataset))
    lines = (f"aas expressions {name} {line} --out {name}.jsonl" for line in dataset.examples)
    return command_of(options, lambda given: write_rows(given, given)), examples(*lines)


def joined(dataset: type, options: type, described: str) -> type:
    """A class with the fields of both."""
    namespace = {"__doc__": described}
    return make_dataclass(
        dataset.__name__, [], bases=(options, dataset), namespace=namespace, frozen=True, kw_only=True
    )


def register(app: typer.Typer) -> None:
    """Add both groups of commands."""
    evaluations = ChainMap(registry.EXPRESSION_DATASETS, registry.EVALUATIONS)
    expressions = group(
        "Datasets of given expressions, as the file that `aas infer-attn --answers` takes.",
        lazy_group(registry.EXPRESSION_DATASETS, _rows_of),
    )
    evaluation = group("Figures against ground truth.", lazy_group(evaluations, _evaluation))
    app.add_typer(expressions, name="expressions")
    app.add_typer(evaluation, name="eval")
