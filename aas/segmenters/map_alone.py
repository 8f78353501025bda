"""The segmenter for those without one: `--segmenter map`."""

from collections.abc import Sequence

import numpy as np

from aas.geometry import otsu_mask
from aas.records import View
from aas.segmenters.base import ImageEmbedding, MaskCandidates, Segmenter


class MapAlone(Segmenter):
    """A phrase's own map, brought to the photograph's pixels (bicubic, as where the point is found), above Otsu's
    threshold. No network, no weights; the photograph is not looked at, and prompts say nothing that the map does not.

    One mask a phrase, empty where the map is constant; nothing judges it: its score is 1. What the map's grid does not
    cover is not in it.
    """

    reads_points = False
    wants_maps = True

    @property
    def is_small(self) -> bool:
        return True

    def encode(self, images: Sequence[np.ndarray]) -> list[ImageEmbedding]:
        """Their sizes alone."""
        return [ImageEmbedding((image.shape[0], image.shape[1]), None) for image in images]

    def masks(
        self,
        embedding: ImageEmbedding,
        points_xy: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        boxes_xyxy: np.ndarray | None = None,
        mask_logits: np.ndarray | None = None,
        maps: Sequence[tuple[np.ndarray, View]] | None = None,
    ) -> MaskCandidates:
        """`maps`: of each prompt its phrase's, float32 [h, w], and their view. ValueError without any."""
        if maps is None:
            raise ValueError("The segmenter `map` makes masks of a phrase's map, and of no points, boxes or masks.")
        found = [otsu_mask(grid_map, view, embedding.size_hw) for grid_map, view in maps]
        masks = np.array(found, bool).reshape(len(found), 1, *embedding.size_hw)
        return MaskCandidates(masks, np.ones((len(found), 1), np.float32))
