"""Which heads of a model look at what is spoken of: a file that `aas calibrate` writes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas.paths import embedded_dir

SHIPPED = "heads"  # their folder, among what ships


@dataclass(frozen=True)
class Calibration:
    """`weights`: (layer, head) -> weight. `model` and `revision`: whose heads they are; None where the file, or a
    revision, does not say."""

    path: Path
    weights: Mapping[tuple[int, int], float]
    model: str | None
    revision: str | None


def calibration_file(argument: str) -> Path | None:
    """What `heads:FILE.json` names, or `heads:NAME` of those that ship; None where the argument names heads. ValueError
    for a name that none has."""
    if argument.endswith(".json"):
        return Path(argument)
    if not re.fullmatch(r"[A-Za-z]\S*", argument):
        return None
    shipped = {file.stem: file for file in sorted((embedded_dir(".") / SHIPPED).glob("*.json"))}
    if argument not in shipped:
        raise ValueError(
            f"--maps heads:{argument}: no such calibration ships ({', '.join(shipped) or 'none does'}). "
            "`aas calibrate` finds a model's heads: heads:FILE.json."
        )
    return shipped[argument]


def read_calibration(path: Path) -> Calibration:
    """ValueError for a file that is none; OSError where there is none. A weight that is left out is 1."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        weights = {(int(row[0]), int(row[1])): float(row[2]) if len(row) > 2 else 1.0 for row in content["heads"]}
        if not sum(weights.values()) > 0:
            raise ValueError("no heads of positive weight")
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"--maps heads:{path}: not a calibration ({error}).") from error
    return Calibration(path, weights, content.get("model"), content.get("revision"))
