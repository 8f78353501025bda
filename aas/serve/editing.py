"""A phrase's mask from points that a person sets: each click is one call of the segmenter's decoder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from aas.choices import MaskChoice
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed
from aas.records import GroundedPhrase, Prompt, View
from aas.segmenters.base import ImageEmbedding, Segmenter

MAX_POINTS = 64
Points = Sequence[tuple[int, int, int]]  # x, y in pixels of the photograph, and 1 = on the thing, 0 = not on it


@dataclass(frozen=True)
class Editor:
    """Masks of one photograph, which is encoded already."""

    segmenter: Segmenter
    embedding: ImageEmbedding
    mask_choice: MaskChoice

    def edited(self, phrase: GroundedPhrase, view: View, points: Points) -> GroundedPhrase:
        """The phrase with the mask of `points`, the first + point in place of its map's peak; `view`: of its map.

        With the points that it was found by it is the same mask. Raises ValueError for no + point, too many points, and
        a segmenter that reads none.
        """
        if not getattr(self.segmenter, "reads_points", True):
            raise ValueError("These masks are made of maps, which no point changes: ask with another segmenter.")
        points_xy, labels = tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)
        if 1 not in labels:
            raise ValueError("Set at least one + point, on the thing itself.")
        if len(labels) > MAX_POINTS:
            raise ValueError(f"{MAX_POINTS} points are enough: take some away.")
        first = points_xy[labels.index(1)]
        prompt = Prompt(np.array(points_xy, np.float32), np.array(labels, np.int64))
        pointed = Pointed(phrase.phrase, phrase.map, view, first, prompt)
        (found,) = phrase_masks(self.segmenter, self.embedding, [pointed], self.mask_choice)
        mask, score = found.masks[0], float(found.scores[0])
        return replace(phrase, mask=mask, score=score, point_xy=first, points_xy=points_xy, labels=labels)


def pixels_of(points: object, image_hw: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Points as a browser tells them, `[x, y, label]` with x and y as shares of the photograph, in its pixels.

    Raises ValueError for what is none.
    """
    if not isinstance(points, list) or not all(_is_point(one) for one in points):
        raise ValueError("A point is x and y between 0 and 1, and 1 (on the thing) or 0 (not on it).")
    height, width = image_hw
    return [(min(width - 1, int(x * width)), min(height - 1, int(y * height)), label) for x, y, label in points]


def _is_point(one: object) -> bool:
    if not isinstance(one, list) or len(one) != 3 or not all(type(value) in (int, float) for value in one):
        return False
    x, y, label = one
    return 0 <= x <= 1 and 0 <= y <= 1 and label in (0, 1)
