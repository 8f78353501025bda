"""SPICE of captions (Anderson et al. 2016), by pycocoevalcap: needs much, so it is tried before it is relied upon."""

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from aas.metrics.captions import by_number, java_works

NEEDS = "SPICE needs Java 8, 8 GB of memory, and Stanford CoreNLP 3.6.0, which is downloaded once (about 400 MB)"


class Spice:
    """SPICE: objects, attributes and relations in common; only with --spice.

    Raises ValueError where it does not run here.
    """

    needs_java = False  # says so itself

    def __init__(self) -> None:
        if not java_works():
            raise ValueError(f"{NEEDS}: there is no Java here. Leave --spice out.")
        print(f"{NEEDS}; trying it on one caption.", file=sys.stderr)
        try:
            self._program: Any = _downloaded()
            self(["a dog"], [["a dog"]])
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"{NEEDS}, and it does not run here ({error}). Leave --spice out.") from error

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        scores = self._program.compute_score(*by_number(said, references))[1] if said else []
        return {"kind": "mean", "values": [float(np.nan_to_num(score["All"]["f"])) for score in scores]}


def _downloaded() -> Any:
    from pycocoevalcap.spice.get_stanford_models import get_stanford_models
    from pycocoevalcap.spice.spice import Spice as Scorer

    with contextlib.redirect_stdout(sys.stderr):
        get_stanford_models()
    return Scorer()
