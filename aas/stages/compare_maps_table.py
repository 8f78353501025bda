"""The figures of `aas compare maps`: of every source, and of each but the first its difference to that one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aas.evaluations import report
from aas.metrics import bootstrap
from aas.metrics.mean import mean_evidence
from aas.stages.compare_maps_answers import RANDOM_DRAWS, Looked
from aas.stages.compare_maps_options import CompareMaps

SMALL = 0.3  # of the photograph: things below it are counted apart
FIGURES = ("point", "point, small", "AUC", "NSS", "Otsu IoU", "mask IoU", "deletion")
SIGNED = ("NSS", "deletion")
COSTS = {"ms": ("milliseconds", 1), "MB": ("bytes", 1e-6)}  # column -> the cost, and what it is multiplied by


@dataclass(frozen=True)
class Case:
    """A phrase of an answer about the photograph of that number, and the figures of each source; of a thing that is
    known by its box alone without those of masks."""

    image: int
    phrase: str
    category: str
    area: float
    figures: Mapping[str, Mapping[str, float]]


def cases_of(looked: Looked, image: int) -> list[Case]:
    """One for each phrase; `image`: the photograph's number."""
    phrases = next(iter(looked.pointed.values()))
    return [
        Case(image, one.phrase.text, thing.name, float(thing.masks[0].mean()), figures)
        for one, thing, figures in zip(phrases, looked.things, looked.figures, strict=True)
    ]


def _evidence(cases: Sequence[Case], source: str) -> dict[str, Any]:
    """Figure -> its evidence, over the photographs of the cases."""
    places = {image: i for i, image in enumerate(sorted({case.image for case in cases}))}
    images = [places[case.image] for case in cases]
    found = {}
    for name in FIGURES:
        values = np.array([case.figures[source].get(name.partition(",")[0], np.nan) for case in cases])
        counted = ~np.isnan(values) & [case.area < SMALL or "small" not in name for case in cases]
        if not np.isnan(values).all():
            found[name] = mean_evidence(np.where(counted, values, 0), images, counted, signed=name in SIGNED)
    return found


def content_of(
    names: Sequence[str], cases: Sequence[Case], costs: Mapping[str, Mapping[str, float]], options: CompareMaps
) -> dict[str, Any]:
    """What the JSON file holds."""
    n_images = len({case.image for case in cases})
    common, sizes = [(i, i) for i in range(n_images)], (n_images, n_images)
    evidence = {name: _evidence(cases, name) for name in names}
    first, *others = names
    resampling = (options.n_resamples, options.seed)
    return {
        "figures": {name: report.numbers(of, n_images) for name, of in evidence.items()},
        "intervals": {name: bootstrap.intervals(of, n_images, *resampling) for name, of in evidence.items()},
        "differences": {
            name: bootstrap.differences(evidence[first], evidence[name], common, sizes, *resampling) for name in others
        },
        "costs": costs,
        "counts": {"phrases": len(cases), "images": n_images, "small": sum(case.area < SMALL for case in cases)},
        "cases": [vars(case) for case in cases],
        "settings": {"model": options.model, "maps": list(names), "read_out": options.read_out},
    }


def as_table(content: Mapping[str, Any]) -> str:
    """A line for each source: figures, costs, and its differences to the first one's with 95 % intervals."""
    first, *others = content["settings"]["maps"]
    shown = [name for name in FIGURES if name in content["figures"][first]]
    paid = [name for name, (key, _) in COSTS.items() if key in content["costs"].get(first, {})]
    rows = [_row(content, first, shown, paid)]
    for source in others:
        rows.append(_row(content, source, shown, paid))
        changes = (content["differences"][source].get(name) for name in shown)
        rows.append(["", *("–" if one is None else report.change(one) for one in changes), *[""] * len(paid)])
    return f"{report.markdown(['source', *shown, *paid], rows)}\n\n{_said(content, first, shown, paid)}"


def _row(content: Mapping[str, Any], source: str, shown: Sequence[str], paid: Sequence[str]) -> list[str]:
    figures, costs = content["figures"][source], content["costs"].get(source, {})
    prices = (costs[key] * scale for key, scale in (COSTS[name] for name in paid))
    return [
        source,
        *(report.cell(figures[name], signed=name in SIGNED) for name in shown),
        *(f"{p:.1f}" for p in prices),
    ]


def _said(content: Mapping[str, Any], first: str, shown: Sequence[str], paid: Sequence[str]) -> str:
    counts = content["counts"]
    small = f"{counts['small']} of things below {SMALL:.0%} of their photograph"
    lines = [f"{counts['phrases']} phrases of {counts['images']} photographs, {small}; below each source: its "
             f"difference to {first}."]  # fmt: skip
    if "deletion" in shown:
        lines.append(
            "deletion: how much more log-probability a phrase's tokens lose when the top 12% of the map's cells are "
            f"greyed than when as many are that were drawn (mean of {RANDOM_DRAWS} draws, the same for all sources)."
        )
    if paid:
        lines.append("ms, MB: the time of one photograph with this source alone, and what was kept of it.")
    return "\n".join(lines)
