"""Each photograph is encoded once, however many answers there are about it."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from aas.segmenters.base import ImageEmbedding, Segmenter


@dataclass(frozen=True)
class EncodedOnce:
    """Keeps the embeddings of the last batch: the one before may have been about the same photographs.

    A name alone does not say so: a file may have been written anew, an array changed, and what is no file has its
    address for a name, which the next photograph may be given. So a digest of the pixels stands beside each.
    """

    segmenter: Segmenter
    kept: dict[Hashable, tuple[bytes, ImageEmbedding]] = field(default_factory=dict)

    def of(self, photographs: Mapping[Hashable, np.ndarray]) -> Mapping[Hashable, ImageEmbedding]:
        """Embeddings of uint8 [H, W, 3] photographs, those that are new in one batch; by their own names."""
        digests = {name: _digest(pixels) for name, pixels in photographs.items()}
        for name in [name for name, (digest, _) in self.kept.items() if digest != digests.get(name)]:
            del self.kept[name]
        new = [name for name in photographs if name not in self.kept]
        if new:
            embeddings = self.segmenter.encode([photographs[name] for name in new])
            self.kept.update({name: (digests[name], one) for name, one in zip(new, embeddings, strict=True)})
        return {name: embedding for name, (_, embedding) in self.kept.items()}


def _digest(pixels: np.ndarray) -> bytes:
    digest = sha256(str(pixels.shape).encode())
    digest.update(np.ravel(pixels).data)
    return digest.digest()
