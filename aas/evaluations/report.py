"""What the evaluations write: a table on stdout, one JSON file, one CSV file, and what was wrong on stderr."""

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from aas.datasets.coco import Findings
from aas.metrics import bootstrap
from aas.store.atomic import check_target, write_text
from aas.text import harmless

SHOWN = 3
FAILED = {"unreadable_files", "unreadable_masks", "unreadable_values", "unusable_detections", "missing_images"}
FAILED |= {"not_answered", "not_judged"}


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Options of every evaluation."""

    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write figures (fractions of 1), intervals, counts and what `compare` needs."),
    ] = None
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write one row per image.")] = None
    n_resamples: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Resamples of the images for the 95 % intervals; 0 for none.")
    ] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0

    def __post_init__(self) -> None:
        check_target(self.json_file)
        check_target(self.csv_file)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def cell(value: float | None, interval: Sequence[float] | None = None, signed: bool = False) -> str:
    """`0.625 [0.571, 0.680]`; a dash where there is nothing to measure: COCO's -1, unless figures are `signed`."""
    if value is None or (value < 0 and not signed):
        return "–"
    return f"{value:.3f}" + ("" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]")


def change(row: Mapping[str, Any]) -> str:
    """`+0.012 [-0.003, +0.027]`, of a row of `bootstrap.differences`."""
    low, high = row["interval"]
    return f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def numbers(evidence: bootstrap.Evidence, n_images: int) -> dict[str, float]:
    """The figures themselves; 0 where there was nothing to average, as in the published evaluators."""
    found = bootstrap.figures(evidence, np.ones((1, n_images)))
    return {name: float(np.nan_to_num(values[0])) for name, values in found.items()}


def of_groups(groups: Mapping[str, bootstrap.Evidence], n_images: int, options: ReportOptions) -> dict[str, Any]:
    """The `figures` of each group of questions, None where there is nothing to average, and their `intervals`."""
    once, resampling = np.ones((1, n_images)), (options.n_resamples, options.seed)
    found = {name: bootstrap.figures(evidence, once) for name, evidence in groups.items()}
    return {
        "figures": {
            group: {name: None if np.isnan(values[0]) else float(values[0]) for name, values in of.items()}
            for group, of in found.items()
        },
        "intervals": {name: bootstrap.intervals(of, n_images, *resampling) for name, of in groups.items()}
        if options.n_resamples
        else {},
    }


def table_of_groups(content: Mapping[str, Any]) -> str:
    """Of such content a row per figure, a column per group, with 95 % intervals where there are some."""
    figures, intervals = content["figures"], content["intervals"]
    rows = [["questions", *(str(n) for n in content["counts"]["questions"].values())]]
    for name in next(iter(figures.values())):
        rows.append([name, *(cell(of[name], intervals.get(key, {}).get(name)) for key, of in figures.items())])
    return markdown(["", *figures], rows)


def say_findings(findings: Findings, run: str = "") -> None:
    """One line on stderr for each kind of thing that was wrong, in that `run` if there are several."""
    before = f"{run}: " if run else ""
    for what, where in findings.items():
        shown = "; ".join(where[:SHOWN]) + (f"; … and {len(where) - SHOWN} more" if len(where) > SHOWN else "")
        print(harmless(f"{before}{len(where)} {what.replace('_', ' ')}: {shown}"), file=sys.stderr)


def deliver(content: Mapping[str, Any], findings: Findings, table: str, options: ReportOptions) -> int:
    """Write the files that are asked for, say what was wrong, print the table; returns the exit code."""
    if options.json_file:
        write_json(options.json_file, content)
    if options.csv_file:
        write_text(options.csv_file, as_csv(content["images"], content["evidence"]))
    say_findings(findings)
    print(table)
    return exit_code(findings)


def exit_code(findings: Findings) -> int:
    """3 where files, masks or values could not be read, as for images that fail in other commands."""
    return 3 if FAILED & findings.keys() else 0


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """One JSON object on one line; NaN is refused."""
    write_text(path, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")


def as_csv(images: Sequence[str], groups: Mapping[str, bootstrap.Evidence]) -> str:
    """One row per image: every figure that has a value for one image alone, a blank where that has nothing."""
    table: dict[str, list[str]] = {}
    for group, evidence in groups.items():
        for name, columns in evidence.items():
            if columns["kind"] != "detections":
                for figure, values in _by_image(name, columns).items():
                    table[f"{group}_{figure}"] = ["" if np.isnan(value) else f"{value:.6f}" for value in values]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", *table])
    writer.writerows(zip(images, *table.values(), strict=True))
    return text.getvalue()


def _by_image(name: str, columns: Mapping[str, Any]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    keys = [key for key in columns if key != "kind"]
    for i in range(len(columns[keys[0]])):
        alone = {"kind": columns["kind"]} | {key: columns[key][i : i + 1] for key in keys}
        for figure, values in bootstrap.figures({name: alone}, np.ones((1, 1))).items():
            found.setdefault(figure, []).append(float(values[0]))
    return found
