"""`aas expressions NAME`: given expressions as the file that `aas infer-attn --answers` takes."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aas.datasets.expressions import ExpressionDataset
from aas.store.atomic import check_target, write_text
from aas.text import harmless

SHOWN_PROBLEMS = 10


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Options of every `aas expressions NAME`, beside the dataset's own."""

    out: Annotated[Path, typer.Option(help="File for `aas infer-attn --answers`.")]


def write_rows(dataset: ExpressionDataset, options: RowOptions) -> int:
    """One JSON line for each expression; returns the exit code."""
    check_target(options.out)
    found = dataset.read()
    lines = [json.dumps(dataset.row(one), ensure_ascii=False) + "\n" for one in found.items]
    write_text(options.out, "".join(lines))
    print(options.out)
    print(f"{len(found.items)} expressions about {len({one.image for one in found.items})} images", file=sys.stderr)
    complain(found.problems)
    return 3 if found.problems else 0


def complain(problems: Sequence[str]) -> None:
    """The first few, on stderr."""
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"aas: {harmless(problem)}", file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"aas: … and {len(problems) - SHOWN_PROBLEMS} more", file=sys.stderr)
