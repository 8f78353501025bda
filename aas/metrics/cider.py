"""CIDEr of captions (Vedantam et al. 2015), by pycocoevalcap."""

from collections.abc import Sequence
from typing import Any

from aas.metrics.captions import by_number


class Cider:
    """CIDEr: n-grams weighted by how rare they are in the references."""

    needs_java = False

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Document frequencies are those of all references here, for every resample too."""
        from pycocoevalcap.cider.cider import Cider as Scorer

        if not any(words for of_image in references for words in of_image):
            return {"kind": "mean", "values": [0.0] * len(said)}  # the library cannot count the words of none
        return {"kind": "mean", "values": Scorer().compute_score(*by_number(said, references))[1].tolist()}
