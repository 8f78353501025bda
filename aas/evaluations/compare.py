"""`aas eval compare`: two evaluations of the same images, figure by figure."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from aas.datasets.sources import read_json
from aas.evaluations import report
from aas.metrics import bootstrap
from aas.store.atomic import check_target


@dataclass(frozen=True, kw_only=True)
class EvalCompare:
    """Which of two runs is better, figure by figure, with paired intervals."""

    examples: ClassVar = ("aas eval compare first.json second.json",)

    first: Annotated[Path, typer.Argument(help="A: the --json of an evaluation …")]
    second: Annotated[Path, typer.Argument(help="B: … and of another one, of the same images.")]
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table as JSON.")] = None
    n_resamples: Annotated[
        int, typer.Option("--bootstrap", min=1, help="Resamples of the images, the same for both.")
    ] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0

    def run(self) -> int:
        """Print each figure of both, their difference with its interval, and p; returns the exit code."""
        check_target(self.json_file)
        a, b = _read(self.first), _read(self.second)
        found, n_common = compared(a, b, f"{self.first} and {self.second}", self.n_resamples, self.seed)
        print(_table(found))
        if self.json_file:
            settings = {"a": str(self.first), "b": str(self.second), "images": n_common}
            settings |= {"resamples": self.n_resamples, "seed": self.seed}
            report.write_json(self.json_file, found | {"settings": settings})
        return 0


def compared(
    a: Mapping[str, Any], b: Mapping[str, Any], names: str, n_resamples: int, seed: int
) -> tuple[dict[str, Any], int]:
    """(figures by group, number of images that both have) of what two evaluations write as JSON. `names`: of both, for
    the errors. ValueError where they have no image, or no figure, in common."""
    places = {key: i for i, key in enumerate(b["images"])}
    common = [(i, places[key]) for i, key in enumerate(a["images"]) if key in places]
    if not common:
        raise ValueError(f"{names} have no image in common.")
    sizes = (len(a["images"]), len(b["images"]))
    alone = sum(sizes) - 2 * len(common)
    if alone:
        print(f"{alone} images are in one of the two only: {len(common)} are compared.", file=sys.stderr)
    found = {
        group: bootstrap.differences(evidence, b["evidence"][group], common, sizes, n_resamples, seed)
        for group, evidence in a["evidence"].items()
        if group in b["evidence"]
    }
    if not any(found.values()):
        raise ValueError(f"{names} have no figure in common: evaluate both by the same protocol.")
    return found, len(common)


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if isinstance(content, dict) and "runs" in content:
        raise ValueError(f"{path} holds several runs, compared already: evaluate each alone, with a --json of its own.")
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
            report.change(row),
            f"{row['p']:.3f}",
        ]
        for group, figures in found.items()
        for figure, row in figures.items()
    ]
    return report.markdown(["", "figure", "A", "B", "B − A", "p"], rows)
