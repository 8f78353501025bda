"""Which category does a noun name? The nearest by spaCy's word vectors."""

import logging
from collections.abc import Sequence

import numpy as np
from spacy.language import Language

WITH_VECTORS = "take embedded, en_core_web_md or en_core_web_lg"

log = logging.getLogger(__name__)


class CategoryMatcher:
    """Cosine between a noun's vector and those of category names, as `Doc.vector` gives them.

    Raises ValueError where the pipeline knows no vector for any name: nothing could be matched. Of a pipeline without
    word vectors spaCy gives what its parser makes of a text, which tells words apart by their looks: a warning says so.
    """

    def __init__(self, pipeline: Language, names: Sequence[str]):
        self.pipeline, self.names = pipeline, list(names)
        self._known: dict[str, np.ndarray] = {}
        self.vectors = np.stack([self._unit_vector(name) for name in self.names])
        if not self.vectors.any():
            raise ValueError(f"The spaCy pipeline has no word vectors: {WITH_VECTORS}.")
        if not len(pipeline.vocab.vectors):
            log.warning(
                "The spaCy pipeline %s has no word vectors, and what its parser makes of words says little of what "
                "they mean: categories will be wrong. Better %s.",
                f"{pipeline.lang}_{pipeline.meta['name']}",
                WITH_VECTORS,
            )

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
