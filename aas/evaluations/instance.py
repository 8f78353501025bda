"""`aas eval instance`: detections against COCO's masks, and their points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from tqdm import tqdm

from aas.datasets.coco import Findings, in_order, usable_ids
from aas.datasets.instances import Instance, InstanceTruth, read_detections, read_truth
from aas.evaluations import report
from aas.metrics import bootstrap
from aas.metrics.detections import Detection, Detections, TrueMask
from aas.rle import Rle, covers
from aas.store.addresses import OF_RUN


@dataclass(frozen=True, kw_only=True)
class EvalInstance(report.ReportOptions):
    """COCO's AP and AR over masks, point accuracy, and a table of categories."""

    examples: ClassVar = (
        "aas eval instance --results instances/results.json --gt instances_val2017.json",
        "aas eval instance --results instances --gt instances_val2017.json --json run.json --csv run.csv",
    )

    results: Annotated[
        Path, typer.Option(help="COCO results file, or run folder or URL of `aas segment instance`.", **OF_RUN)
    ]
    gt: Annotated[
        Path, typer.Option(help="COCO instances. Ids may be numbers or strings, masks polygons or run lengths.")
    ]

    def run(self) -> int:
        """Print the tables, write what was asked for; returns the exit code."""
        content, findings = evaluate(self)
        return report.deliver(content, findings, as_table(content), self)


def evaluate(arguments: EvalInstance) -> tuple[dict[str, Any], Findings]:
    """(what the JSON file holds, what was wrong)."""
    findings: Findings = {}
    truth = read_truth(arguments.gt, findings)
    found = read_detections(arguments.results, truth, findings)
    order = in_order(truth.ids)
    detections = _detections(truth, found, order)
    figures, by_category = detections.figures()
    content: dict[str, Any] = dict(figures)
    on_thing = _points(truth, found)
    evidence: dict[str, Any] = {}
    if on_thing:
        evidence["point_accuracy"] = _point_evidence(on_thing, order)
        content |= report.numbers(evidence, len(order))
    if len(on_thing) < len(found):
        findings["detections_without_a_point"] = [str(i) for i in range(len(found)) if i not in on_thing]
    if arguments.n_resamples or arguments.json_file:
        evidence["AP"] = detections.evidence()
    if arguments.n_resamples:
        content["intervals"] = bootstrap.intervals(evidence, len(order), arguments.n_resamples, arguments.seed)
    content["counts"] = {"images": len(order), "true_masks": len(truth.masks), "detections": len(found)}
    content["counts"] |= {what: len(where) for what, where in findings.items()}
    content["settings"] = {"task": "instance", "resamples": arguments.n_resamples, "seed": arguments.seed}
    content["categories"] = _category_rows(truth, found, by_category, on_thing)
    content |= {"reported": findings, "images": order, "evidence": {"instance": evidence}}
    return content, findings


def _detections(truth: InstanceTruth, found: Sequence[Instance], order: Sequence[str]) -> Detections:
    images = {key: i for i, key in enumerate(order, start=1)}
    categories = _numbers(truth)
    true = [
        TrueMask(images[mask.image], categories[mask.category], number, mask.rle, mask.area, mask.is_crowd)
        for number, mask in zip(usable_ids(truth.masks), truth.masks, strict=True)
        if mask.category in categories
    ]
    detected = [Detection(images[one.image], categories[one.category], one.rle, one.area, one.score) for one in found]
    return Detections(len(order), list(categories.values()), true, detected)


def _numbers(truth: InstanceTruth) -> dict[str, int]:
    """Category id as text -> its place, from 1."""
    return {key: i for i, key in enumerate(in_order(truth.category_ids), start=1)}


def _points(truth: InstanceTruth, found: Sequence[Instance]) -> dict[int, tuple[Instance, bool]]:
    """Number of each detection that has a point -> (it, whether the point lies in the union of the true masks, crowds
    included, of its category in its image): the reference's point accuracy."""
    masks: dict[tuple[str, str], list[Rle]] = {}
    for mask in truth.masks:
        masks.setdefault((mask.image, mask.category), []).append(mask.rle)
    return {
        i: (one, any(covers(mask, one.point_xy) for mask in masks.get((one.image, one.category), [])))
        for i, one in enumerate(tqdm(found, unit="point", desc="checking points"))
        if one.point_xy is not None
    }


def _point_evidence(on_thing: Mapping[int, tuple[Instance, bool]], order: Sequence[str]) -> dict[str, Any]:
    right, n = dict.fromkeys(order, 0), dict.fromkeys(order, 0)
    for one, is_right in on_thing.values():
        right[one.image] += is_right
        n[one.image] += 1
    return {"kind": "mean", "values": list(right.values()), "n": list(n.values())}


def _category_rows(
    truth: InstanceTruth,
    found: Sequence[Instance],
    by_category: Sequence[Mapping[str, float]],
    on_thing: Mapping[int, tuple[Instance, bool]],
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    for key, figures in zip(_numbers(truth), by_category, strict=True):
        counts = {"true_masks": 0, "detections": 0, "points": 0, "points_right": 0}
        rows[key] = {"category_id": key, "name": truth.categories[key], **counts, **figures}
    for mask in truth.masks:
        if mask.category in rows:
            rows[mask.category]["true_masks"] += 1
    for one in found:
        rows[one.category]["detections"] += 1
    for one, is_right in on_thing.values():
        rows[one.category]["points"] += 1
        rows[one.category]["points_right"] += is_right
    return list(rows.values())


def as_table(content: Mapping[str, Any]) -> str:
    """The figures with their intervals, and a row for each category that has masks or detections."""
    figures = [name for name, value in content.items() if isinstance(value, float)]
    intervals = content.get("intervals", {})
    whole = report.markdown(["", "all"], [[name, report.cell(content[name], intervals.get(name))] for name in figures])
    header = ["category", "masks", "detections", "AP", "AP50", "AR100", "point accuracy"]
    rows = [
        [
            row["name"],
            str(row["true_masks"]),
            str(row["detections"]),
            *(report.cell(row[name]) for name in ("AP", "AP50", "AR100")),
            report.cell(row["points_right"] / row["points"] if row["points"] else None),
        ]
        for row in content["categories"]
        if row["true_masks"] or row["detections"]
    ]
    return f"{whole}\n\n{report.markdown(header, rows)}"
