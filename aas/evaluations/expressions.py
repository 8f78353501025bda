"""`aas eval refcoco|png|reasonseg`: the masks of `aas segment expressions` against a dataset's."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from aas.datasets.expressions import Expression, Expressions, Target, mask_of, what_is_wrong
from aas.evaluations import report
from aas.evaluations.rows import complain
from aas.metrics import bootstrap
from aas.metrics.expressions import Overlap, narrative_evidence, overlap, referring_evidence
from aas.store.atomic import write_text
from aas.store.results import raw_result
from aas.store.runs import RunFolder

N_RESAMPLES = 1000  # of the images, for intervals


@dataclass(frozen=True)
class Scored:
    """One target: the `index`-th of an expression; `problem`: why there is no mask to compare, if there is none."""

    expression: Expression
    index: int
    target: Target
    overlap: Overlap
    problem: str = ""


MeasuredBy = Callable[[Sequence[Scored], Sequence[int]], bootstrap.Evidence]


def referring(scored: Sequence[Scored], images: Sequence[int]) -> bootstrap.Evidence:
    return referring_evidence([one.overlap for one in scored], images)


def narratives(scored: Sequence[Scored], images: Sequence[int]) -> bootstrap.Evidence:
    return narrative_evidence([one.overlap for one in scored], [one.target.kinds for one in scored], images)


def evaluate(
    dataset: Expressions,
    results: Path,
    measured: MeasuredBy,
    json_file: Path | None = None,
    csv_file: Path | None = None,
) -> int:
    """Print a table, write the files that are asked for; returns the exit code.

    A target without a mask counts as not found and is reported; what cannot be read of the ground truth is left out
    and reported. Raises ValueError or OSError where nothing can be compared.
    """
    run = _results(results, dataset)
    scored: list[Scored] = []
    unusable = list(dataset.problems)
    for expression in tqdm(dataset.items, unit="expression"):
        try:
            scored += _scored(expression, run)
        except (KeyError, TypeError, ValueError, OSError) as error:
            unusable.append(f"{expression.id}: {what_is_wrong(error)}")
    if not scored:
        raise ValueError(f"No ground truth can be read: {unusable[0]}")
    extra = sorted(set(run.items()) - {expression.id for expression in dataset.items})
    problems = list(dict.fromkeys(one.problem for one in scored if one.problem))
    content = _measured(scored, measured) | {
        "counts": {
            "expressions": len({one.expression.id for one in scored}),
            "images": len({one.expression.image for one in scored}),
            "masks": len(scored),
            "not_predicted": sum(one.overlap.missing for one in scored),
            "unusable": len(unusable),
            "extra": len(extra),
        },
        "reported": {"not_predicted": problems, "unusable": unusable, "extra": extra},
    }
    if json_file:
        report.write_json(json_file, content)
    if csv_file:
        write_text(csv_file, as_csv(scored))
    print(as_text(content))
    complain(problems + unusable)
    return 3 if problems or unusable else 0


def _measured(scored: Sequence[Scored], measured: MeasuredBy) -> dict[str, Any]:
    """Figures (None where there is nothing to average), their intervals, and what `aas eval compare` needs."""
    numbers = {image: i for i, image in enumerate(dict.fromkeys(one.expression.image for one in scored))}
    evidence = measured(scored, [numbers[one.expression.image] for one in scored])
    found = bootstrap.figures(evidence, np.ones((1, len(numbers))))
    figures = {name: None if np.isnan(values[0]) else float(values[0]) for name, values in found.items()}
    return figures | {
        "intervals": bootstrap.intervals(evidence, len(numbers), N_RESAMPLES, seed=0),
        "images": list(numbers),
        "evidence": {"expressions": evidence},
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
    masks, problem = _predicted(expression, run)
    scored = []
    for index, target in enumerate(targets):
        reason = problem
        found = overlap(None, target.mask, target.ignore)
        if masks is not None:
            try:
                predicted = mask_of(masks[index], *target.mask["size"])
                found = overlap(predicted, target.mask, target.ignore)
            except ValueError as error:
                reason = f"{expression.id}: mask {index} is no mask of the photograph ({error})"
        scored.append(Scored(expression, index, target, found, reason))
    return scored


def _predicted(expression: Expression, run: RunFolder) -> tuple[list[Any] | None, str]:
    """One mask for each target; or None, and the reason."""
    path = run.item_path(expression.id)
    if not path.is_file():
        return None, f"{expression.id}: no result"
    try:
        masks = raw_result(path)["pred_masks"]
        n_masks = len(masks)
    except (ValueError, TypeError) as error:
        return None, f"{path}: damaged ({type(error).__name__}: {error})"
    if n_masks != expression.n_targets:
        return None, f"{expression.id}: {n_masks} masks for {expression.n_targets} targets"
    return masks, ""


def as_text(content: dict[str, Any]) -> str:
    """A Markdown table of the figures with their intervals, and a line of counts."""
    evidence, intervals = content["evidence"]["expressions"], content["intervals"]
    rows = [[name, report.cell(content[name], intervals.get(name))] for name in evidence]
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
        expression, found = one.expression, one.overlap
        words = expression.text[slice(*expression.spans[one.index])] if expression.spans else expression.text
        kinds = " ".join(sorted(one.target.kinds))
        writer.writerow(
            [expression.id, expression.image, words, kinds, found.intersection, found.union, found.iou, one.problem]
        )
    return text.getvalue()
