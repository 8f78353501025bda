"""ROUGE-L of captions (Lin 2004), by pycocoevalcap."""

from collections.abc import Sequence
from typing import Any

from aas.metrics.captions import by_number


class Rouge:
    """ROUGE-L: the longest sequence of words in common."""

    needs_java = False

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        from pycocoevalcap.rouge.rouge import Rouge as Scorer

        values = Scorer().compute_score(*by_number(said, references))[1].tolist() if said else []
        return {"kind": "mean", "values": values}
