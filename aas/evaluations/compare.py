"""`aas eval compare`: two evaluations of the same images, figure by figure."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aas.datasets.sources import read_json
from aas.evaluations import report
from aas.metrics import bootstrap


def eval_compare(first: Path, second: Path, n_resamples: int, seed: int, json_file: Path | None) -> int:
    """Print each figure of both, their difference with its interval, and p; returns the exit code."""
    a, b = _read(first), _read(second)
    places = {key: i for i, key in enumerate(b["images"])}
    common = [(i, places[key]) for i, key in enumerate(a["images"]) if key in places]
    if not common:
        raise ValueError(f"{first} and {second} have no image in common.")
    alone = len(a["images"]) + len(b["images"]) - 2 * len(common)
    if alone:
        print(f"{alone} images are in one of the two only: {len(common)} are compared.", file=sys.stderr)
    sizes = (len(a["images"]), len(b["images"]))
    found = {
        group: bootstrap.differences(a["evidence"][group], b["evidence"][group], common, sizes, n_resamples, seed)
        for group in a["evidence"]
        if group in b["evidence"]
    }
    if not any(found.values()):
        raise ValueError(f"{first} and {second} have no figure in common: evaluate both by the same protocol.")
    print(_table(found))
    if json_file:
        settings = {"a": str(first), "b": str(second), "images": len(common), "resamples": n_resamples, "seed": seed}
        report.write_json(json_file, found | {"settings": settings})
    return 0


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "evidence"} <= content.keys():
        raise ValueError(f"{path} was not written by `aas eval … --json`.")
    return content


def _table(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    rows = [
        [
            group,
            figure,
            f"{row['a']:.3f}",
            f"{row['b']:.3f}",
            f"{row['difference']:+.3f} [{row['interval'][0]:+.3f}, {row['interval'][1]:+.3f}]",
            f"{row['p']:.3f}",
        ]
        for group, figures in found.items()
        for figure, row in figures.items()
    ]
    return report.markdown(["", "figure", "A", "B", "B − A", "p"], rows)
