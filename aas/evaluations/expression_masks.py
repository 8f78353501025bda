"""`aas eval NAME` of a dataset of given expressions: the masks of `aas segment expressions` against the dataset's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from aas import registry
from aas.datasets.expressions import Expression, ExpressionDataset, Expressions, Target, mask_of, what_is_wrong
from aas.datasets.rows import complain
from aas.evaluations import report, several
from aas.evaluations.expression_tables import Scored, as_csv, as_text, figures, in_words
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

    results: Annotated[
        tuple[Path, ...],
        typer.Option(
            help="Run folder or URL of `aas segment expressions`. May be repeated: each is shown beside the first.",
            **OF_RUN,
        ),
    ]
    metric: Annotated[
        tuple[str, ...], typer.Option(help="A measure by name; may be repeated. Default: the dataset's own.")
    ] = ()
    csv_file: Annotated[Path | None, typer.Option("--csv", help="File with one line for each mask.")] = None


@dataclass(frozen=True)
class _Run:
    """What the JSON file holds of a run, its masks, and why some of them could not be compared."""

    content: dict[str, Any]
    scored: list[Scored]
    problems: list[str]


def evaluate(dataset: ExpressionDataset, options: MaskOptions) -> int:
    """Print a table, write the files that are asked for; returns the exit code.

    A target without a mask counts as not found and is reported; what cannot be read of the ground truth is left out
    and reported. Of several runs each is beside the first, with the paired difference to it. Raises ValueError or
    OSError where nothing can be compared.
    """
    names = options.metric or dataset.metrics
    measures = {one: registry.load(registry.EXPRESSION_METRICS, one, "measure of masks (--metric)") for one in names}
    places, truth = several.named(options.results), dataset.read()
    runs = {name: _of_run(truth, path, measures, options) for name, path in places.items()}
    if len(runs) == 1:
        (run,) = runs.values()
        content, text, table, problems = run.content, as_text(run.content), as_csv(run.scored), run.problems
    else:
        content = several.beside({name: run.content for name, run in runs.items()}, options)
        counted = "\n".join(f"{name}: {in_words(run.content['counts'])}." for name, run in runs.items())
        text = f"{several.as_text(content, figures)}\n\n{counted}\n{several.made_by(places)}"
        table = several.stacked({name: as_csv(run.scored) for name, run in runs.items()})
        problems = [f"{name}: {problem}" for name, run in runs.items() for problem in run.problems]
    if options.json_file:
        report.write_json(options.json_file, content)
    if options.csv_file:
        write_text(options.csv_file, table)
    print(text)
    complain(problems)
    return 3 if problems else 0


def _of_run(truth: Expressions, results: Path, measures: Mapping[str, Measure], options: MaskOptions) -> _Run:
    run = _results(results, truth)
    scored, unusable = _all_scored(truth, run)
    extra = sorted(set(run.items()) - {expression.id for expression in truth.items})
    problems = list(dict.fromkeys(one.problem for one in scored if one.problem))
    content = _measured(scored, list(measures.values()), options) | {
        "counts": _counts(scored) | {"unusable": len(unusable), "extra": len(extra)},
        "reported": {"not_predicted": problems, "unusable": unusable, "extra": extra},
        "settings": {"metrics": list(measures), "resamples": options.n_resamples, "seed": options.seed},
    }
    return _Run(content, scored, problems + unusable)


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
    return {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()} | {
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
