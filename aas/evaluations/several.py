"""Several runs of the same data in one table: the figures of each, and how they differ from those of the first."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aas.choices import TRAINING_FREE
from aas.datasets.coco import Findings
from aas.evaluations import report
from aas.evaluations.compare import compared
from aas.store.atomic import write_text
from aas.store.runs import RunFolder
from aas.text import harmless

# group -> figure -> (its value, its interval)
Figures = Mapping[str, Mapping[str, tuple[float | None, Sequence[float] | None]]]


def named(results: Sequence[Path]) -> dict[str, Path]:
    """Run folders by their names, or by their paths where two have one name. ValueError for one that is given twice."""
    names = [path.name for path in results]
    found = dict(zip(names if len(set(names)) == len(names) else map(str, results), results, strict=True))
    if len(found) < len(results):
        raise ValueError(f"--results: one of {', '.join(map(str, results))} is given twice.")
    return found


def beside(contents: Mapping[str, Mapping[str, Any]], options: report.ReportOptions) -> dict[str, Any]:
    """What the JSON file holds: of each run what it holds of one alone, and of all but the first the paired differences
    to that, by group and figure; none without resamples."""
    first, *others = contents
    changes = {}
    for name in others if options.n_resamples else ():
        both = contents[first], contents[name]
        changes[name], _ = compared(*both, f"{first} and {name}", options.n_resamples, options.seed)
    return {"runs": dict(contents), "differences": changes}


def deliver(
    found: Mapping[str, tuple[dict[str, Any], Findings]],
    places: Mapping[str, Path],
    figures: Callable[[Mapping[str, Any]], Figures],
    options: report.ReportOptions,
) -> int:
    """As `report.deliver`, of several runs: of each (what the JSON file holds of one alone, what was wrong)."""
    content = beside({name: one for name, (one, _) in found.items()}, options)
    if options.json_file:
        report.write_json(options.json_file, content)
    if options.csv_file:
        tables = {name: report.as_csv(one["images"], one["evidence"]) for name, (one, _) in found.items()}
        write_text(options.csv_file, stacked(tables))
    for name, (_, findings) in found.items():
        report.say_findings(findings, name)
    print(f"{as_text(content, figures)}\n\n{made_by(places)}")
    return max(report.exit_code(findings) for _, findings in found.values())


def as_text(content: Mapping[str, Any], figures: Callable[[Mapping[str, Any]], Figures]) -> str:
    """A Markdown table: a row for each figure, a column for each run, and for its difference to the first."""
    runs = {name: figures(one) for name, one in content["runs"].items()}
    first = next(iter(runs))
    changes = content["differences"]
    header = ["figure"]
    for name in runs:
        header += [name, f"{name} − {first}"] if name in changes else [name]
    rows = []
    for group, of_group in runs[first].items():
        for figure in of_group:
            row = [figure if len(runs[first]) == 1 else f"{group} {figure}"]
            for name, found in runs.items():
                row.append(report.cell(*found[group][figure]))
                if name in changes:
                    change = changes[name].get(group, {}).get(figure)
                    row.append(report.change(change) if change else "")
            rows.append(row)
    return report.markdown(header, rows)


def made_by(results: Mapping[str, Path]) -> str:
    """A line on each run: which head made its masks, as far as its folder says."""
    lines = []
    for name, path in results.items():
        run = RunFolder(path, ".json")
        if run.description_path.is_file():
            head = run.description()["arguments"].get("head")
            lines.append(f"{name}: {TRAINING_FREE if head is None else f'--head {head}'}")
    return harmless("\n".join(lines))


def stacked(tables: Mapping[str, str]) -> str:
    """CSV tables of the same columns below each other, the run in front of each line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for i, (name, table) in enumerate(tables.items()):
        header, *rows = csv.reader(io.StringIO(table))
        writer.writerows([["run", *header]] if i == 0 else [])
        writer.writerows([name, *row] for row in rows)
    return text.getvalue()
