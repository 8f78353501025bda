"""Each photograph is encoded once, however many answers there are about it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from aas.segmenters.base import ImageEmbedding, Segmenter


@dataclass(frozen=True)
class EncodedOnce:
    """Keeps the embeddings of the last batch: the one before may have been about the same photographs."""

    segmenter: Segmenter
    kept: dict[Hashable, ImageEmbedding] = field(default_factory=dict)

    def of(self, photographs: Mapping[Hashable, np.ndarray]) -> Mapping[Hashable, ImageEmbedding]:
        """Embeddings of uint8 [H, W, 3] photographs, those that are new in one batch; by their own names."""
        for name in self.kept.keys() - photographs.keys():
            del self.kept[name]
        new = [name for name in photographs if name not in self.kept]
        if new:
            self.kept.update(zip(new, self.segmenter.encode([photographs[name] for name in new]), strict=True))
        return self.kept
