"""Given expressions as the file that `aas infer-attn --answers` takes."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aas.datasets.expressions import Expression, Expressions
from aas.store.atomic import write_text
from aas.text import harmless

SHOWN_PROBLEMS = 10


def write_rows(dataset: Expressions, out: Path, row: Callable[[Expression], dict[str, Any]]) -> int:
    """One JSON line for each expression; returns the exit code."""
    write_text(out, "".join(json.dumps(row(one), ensure_ascii=False) + "\n" for one in dataset.items))
    images = len({one.image for one in dataset.items})
    print(out)
    print(f"{len(dataset.items)} expressions about {images} images", file=sys.stderr)
    complain(dataset.problems)
    return 3 if dataset.problems else 0


def complain(problems: Sequence[str]) -> None:
    """The first few, on stderr."""
    for problem in problems[:SHOWN_PROBLEMS]:
        print(f"aas: {harmless(problem)}", file=sys.stderr)
    if len(problems) > SHOWN_PROBLEMS:
        print(f"aas: … and {len(problems) - SHOWN_PROBLEMS} more", file=sys.stderr)
