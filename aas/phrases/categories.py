"""Which category does a noun name? The nearest by spaCy's word vectors."""

from collections.abc import Sequence

import numpy as np
from spacy.language import Language


class CategoryMatcher:
    """Cosine between a noun's vector and those of category names, as `Doc.vector` gives them.

    Raises ValueError where the pipeline knows no vector for any name: nothing could be matched.
    """

    def __init__(self, pipeline: Language, names: Sequence[str]):
        self.pipeline, self.names = pipeline, list(names)
        self._known: dict[str, np.ndarray] = {}
        self.vectors = np.stack([self._unit_vector(name) for name in self.names])
        if not self.vectors.any():
            raise ValueError("The spaCy pipeline has no word vectors: take one that has, like en_core_web_lg.")

    def best(self, noun: str, among: Sequence[int]) -> tuple[int, float] | None:
        """The index of the nearest of the names `among` (indices) and its cosine; None without one, or a vector."""
        vector = self._unit_vector(noun.lower())
        if not len(among) or not vector.any():
            return None
        cosines = self.vectors[list(among)] @ vector
        nearest = int(cosines.argmax())
        return among[nearest], float(cosines[nearest])

    def _unit_vector(self, text: str) -> np.ndarray:
        if text not in self._known:
            vector = np.asarray(self.pipeline(text).vector, np.float64)
            norm = np.linalg.norm(vector)
            self._known[text] = vector / norm if norm else vector
        return self._known[text]
