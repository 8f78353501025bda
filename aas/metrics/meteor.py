"""METEOR 1.5 of captions (Denkowski and Lavie 2014, English): statistics by its Java program, the formula here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aas.metrics.bootstrap import Columns, Figures
from aas.metrics.mean import ratio

N_COLUMNS = 23
STAGES = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75


class Meteor:
    """METEOR 1.5: words found by form, stem, synonym or paraphrase, and in how few chunks.

    Its Java process starts with the object, since it takes seconds to load.
    """

    needs_java = True

    def __init__(self) -> None:
        from pycocoevalcap.meteor.meteor import Meteor as JavaMeteor

        self.program: Any = JavaMeteor()

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """METEOR's own statistics of each caption (`meteor` names the columns)."""
        rows = []
        for words, of_image in zip(said, references, strict=True):
            row = self.program._stat(words, list(of_image)).split()
            if len(row) != N_COLUMNS:
                raise RuntimeError("METEOR's Java process ended: it needs 2 GB of memory.")
            rows.append([float(value) for value in row])
        return {"kind": "meteor", "rows": rows}


def meteor(name: str, columns: Columns, weights: np.ndarray) -> Figures:
    """METEOR of the whole corpus from its statistics.

    Columns: words and reference's words, function words of both; for each stage content words found in both, function
    words found in both; chunks; words of both in the match.
    """
    rows = np.array(columns["rows"], float).reshape(-1, N_COLUMNS)
    # A caption that is its reference word for word, in one chunk, has no break in it.
    rows[(rows[:, 20] == 1) & (rows[:, 21:23] == rows[:, :2]).all(axis=1), 20] = 0
    sums = weights @ rows
    precision, recall = (_share(sums, side) for side in (0, 1))
    f_mean = np.nan_to_num(ratio(precision * recall, ALPHA * precision + (1 - ALPHA) * recall))
    fragments = np.nan_to_num(ratio(sums[:, 20], sums[:, 21:23].mean(axis=1)))
    return {name: f_mean * (1 - GAMMA * fragments**BETA)}


def _share(sums: np.ndarray, side: int) -> np.ndarray:
    """Of the words of a side (0 caption, 1 reference), weighted, those that are found; float64 [resamples]."""
    found = STAGES @ sums[:, 4:20].reshape(-1, 4, 4)  # [resamples, content of both, function of both]
    n_words, n_function = sums[:, side], sums[:, 2 + side]
    weighted = DELTA * found[:, side] + (1 - DELTA) * found[:, 2 + side]
    return weighted / np.maximum(DELTA * (n_words - n_function) + (1 - DELTA) * n_function, 1e-9)
