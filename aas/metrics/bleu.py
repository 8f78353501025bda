"""BLEU 1 to 4 of captions (Papineni et al. 2002): n-grams counted by pycocoevalcap, their ratios taken here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from aas.metrics.bootstrap import Columns, Figures


class Bleu:
    """Bleu_1 to Bleu_4: n-grams of the captions that a reference has."""

    needs_java = False

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Per image: words, words of the closest reference, 1- to 4-grams, those that a reference has."""
        from pycocoevalcap.bleu.bleu_scorer import BleuScorer

        scorer = BleuScorer(n=4)
        for caption, of_image in zip(said, references, strict=True):
            scorer += (caption, list(of_image))
        rows = [[row["testlen"], _closest(row), *row["guess"], *row["correct"]] for row in scorer.ctest]
        return {"kind": "bleu", "rows": rows}


def _closest(row: dict[str, Any]) -> int:
    return min((abs(n - row["testlen"]), n) for n in row["reflen"])[1]


def bleu(name: str, columns: Columns, weights: np.ndarray) -> Figures:
    """Bleu_1 to Bleu_4 of the whole corpus, with pycocoevalcap's small numbers against division by 0."""
    sums = weights @ np.asarray(columns["rows"], float).reshape(-1, 10)
    n_words, n_reference, n_grams, n_right = sums[:, 0], sums[:, 1], sums[:, 2:6], sums[:, 6:10]
    products = np.cumprod((n_right + 1e-15) / (n_grams + 1e-9), axis=1)
    ratio = (n_words + 1e-15) / (n_reference + 1e-9)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))
    return {f"{name}_{k}": products[:, k - 1] ** (1 / k) * brevity for k in range(1, 5)}
