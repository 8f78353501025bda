"""`aas eval NAME` of a dataset of given expressions: the masks of `aas segment expressions` against the dataset's."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from aas import registry
from aas.datasets.expressions import Expression, ExpressionDataset, Expressions, Target, mask_of, what_is_wrong
from aas.datasets.rows import complain
from aas.evaluations import report
from aas.metrics import bootstrap
from aas.metrics.overlap import MaskPair
from aas.rle import Rle
from aas.store.addresses import OF_RUN
from aas.store.atomic import write_text
from aas.store.results import raw_result
from aas.store.runs import RunFolder
from aas.store.shards import is_there

# Of a mask pair each, and the number of its image: what figures are made of. `registry.EXPRESSION_METRICS` names them.
Measure = Callable[[Sequence[MaskPair], Sequence[int]], bootstrap.Evidence]


@dataclass(frozen=True, kw_only=True)
class MaskOptions(report.ReportOptions):
    """Options of every `aas eval NAME` of a dataset of given expressions, beside the dataset's own."""

    results: Annotated[Path, typer.Option(help="Run folder or URL of `aas segment expressions`.", **OF_RUN)]
    metric: Annotated[
        tuple[str, ...], typer.Option(help="A measure by name; may be repeated. Default: the dataset's own.")
    ] = ()
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File with one line for each mask.")] = None


@dataclass(frozen=True)
class Scored:
    """One target: the `index`-th of an expression; `problem`: why there is no mask to compare, if there is none."""

    expression: Expression
    index: int
    pair: MaskPair
    problem: str = ""


def evaluate(dataset: ExpressionDataset, options: MaskOptions) -> int:
    """Print a table, write the files that are asked for; returns the exit code.

    A target without a mask counts as not found and is reported; what cannot be read of the ground truth is left out
    and reported. Raises ValueError or OSError where nothing can be compared.
    """
    names = options.metric or dataset.metrics
    measures = [registry.load(registry.EXPRESSION_METRICS, name, "measure of masks (--metric)") for name in names]
    truth = dataset.read()
    run = _results(options.results, truth)
    scored, unusable = _all_scored(truth, run)
    extra = sorted(set(run.items()) - {expression.id for expression in truth.items})
    problems = list(dict.fromkeys(one.problem for one in scored if one.problem))
    content = _measured(scored, measures, options) | {
        "counts": _counts(scored) | {"unusable": len(unusable), "extra": len(extra)},
        "reported": {"not_predicted": problems, "unusable": unusable, "extra": extra},
        "settings": {"metrics": list(names), "resamples": options.n_resamples, "seed": options.seed},
    }
    if options.json_file:
        report.write_json(options.json_file, content)
    if options.csv_file:
        write_text(options.csv_file, as_csv(scored))
    print(as_text(content))
    complain(problems + unusable)
    return 3 if problems or unusable else 0


def _all_scored(truth: Expressions, run: RunFolder) -> tuple[list[Scored], list[str]]:
    """(each target, what cannot be read of the ground truth)."""
    scored: list[Scored] = []
    unusable = list(truth.problems)
    for expression in tqdm(truth.items, unit="expression"):
        try:
            scored += _scored(expression, run)
        except (KeyError, TypeError, ValueError, OSError) as error:
            unusable.append(f"{expression.id}: {what_is_wrong(error)}")
    if not scored:
        raise ValueError(f"No ground truth can be read: {unusable[0]}")
    return scored, unusable


def _measured(scored: Sequence[Scored], measures: Sequence[Measure], options: MaskOptions) -> dict[str, Any]:
    """Figures (None where there is nothing to average), their intervals, and what `aas eval compare` needs."""
    numbers = {image: i for i, image in enumerate(dict.fromkeys(one.expression.image for one in scored))}
    pairs, images = [one.pair for one in scored], [numbers[one.expression.image] for one in scored]
    evidence: dict[str, Any] = {}
    for measure in measures:
        evidence |= measure(pairs, images)
    found = bootstrap.figures(evidence, np.ones((1, len(numbers))))
    figures = {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()}
    return figures | {
        "intervals": bootstrap.intervals(evidence, len(numbers), options.n_resamples, options.seed),
        "images": list(numbers),
        "evidence": {"expressions": evidence},
    }


def _counts(scored: Sequence[Scored]) -> dict[str, int]:
    return {
        "expressions": len({one.expression.id for one in scored}),
        "images": len({one.expression.image for one in scored}),
        "masks": len(scored),
        "not_predicted": sum(one.pair.overlap.missing for one in scored),
    }


def _results(results: Path, dataset: Expressions) -> RunFolder:
    if not results.is_dir():
        raise FileNotFoundError(f"--results {results}: no such folder.")
    run = RunFolder(results, ".json")
    if not any(run.is_done(expression.id) for expression in dataset.items):
        wanted = run.item_path(dataset.items[0].id).name if dataset.items else "none: the dataset has no expressions"
        raise ValueError(
            f"--results {results} holds no result for this dataset (the first would be {wanted}): give the folder of "
            "`aas segment expressions`, and the dataset's options as `aas expressions` was given them."
        )
    return run


def _scored(expression: Expression, run: RunFolder) -> list[Scored]:
    targets = expression.read_targets()
    if len(targets) != expression.n_targets:
        raise ValueError(f"the dataset has {len(targets)} masks for {expression.n_targets} phrases")
    masks, problem = _predicted(expression, run)
    if masks is None:
        return [Scored(expression, i, _pair(None, target), problem) for i, target in enumerate(targets)]
    return [_compared(expression, i, target, masks[i]) for i, target in enumerate(targets)]


def _compared(expression: Expression, index: int, target: Target, mask: Any) -> Scored:
    nothing = _pair(None, target)
    try:
        return Scored(expression, index, _pair(mask_of(mask, *target.mask["size"]), target))
    except (ValueError, TypeError) as error:
        reason = f"{expression.id}: mask {index} is no mask of the photograph ({error})"
        return Scored(expression, index, nothing, reason)


def _pair(predicted: Rle | None, target: Target) -> MaskPair:
    """Raises ValueError where the sizes differ."""
    return MaskPair(predicted, target.mask, target.ignore, target.kinds)


def _predicted(expression: Expression, run: RunFolder) -> tuple[list[Any] | None, str]:
    """One mask for each target; or None, and the reason."""
    path = run.item_path(expression.id)
    if not is_there(path):
        return None, f"{expression.id}: no result"
    try:
        masks = raw_result(path)["pred_masks"]
    except (ValueError, OSError) as error:
        return None, f"{path}: damaged ({type(error).__name__}: {error})"
    if not isinstance(masks, list):
        return None, f"{path}: damaged (its pred_masks are no list)"
    if len(masks) != expression.n_targets:
        return None, f"{expression.id}: {len(masks)} masks for {expression.n_targets} targets"
    return masks, ""


def as_text(content: dict[str, Any]) -> str:
    """A Markdown table of the figures with their intervals, and a line of counts."""
    intervals = content["intervals"]
    figures = {name: value for name, value in content.items() if value is None or isinstance(value, float)}
    rows = [[name, report.cell(value, intervals.get(name))] for name, value in figures.items()]
    counts = content["counts"]
    return (
        f"{report.markdown(['figure', 'value'], rows)}\n\n"
        f"{counts['masks']} masks of {counts['expressions']} expressions in {counts['images']} images; "
        f"{counts['not_predicted']} not predicted (they count 0), {counts['unusable']} unusable (left out), "
        f"{counts['extra']} results of others."
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
