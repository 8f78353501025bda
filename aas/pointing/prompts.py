"""From a phrase's map to a prompt for the segmenter."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from aas.choices import ReadOut
from aas.geometry import centroid_xy, largest_pixel_xy, map_on_image, peaks_xy, region_xy
from aas.records import Prompt, View

FULL_ATTENTION = (
    0.0002  # the attention of a cell that counts as certainly on the thing, in the reference's mask prompts
)
ON_THING = 0.75  # the share of it from which a pixel belongs to the box
CERTAINTY = (0.001, 0.999)


READ_OUTS: dict[ReadOut, Callable[[np.ndarray, View, tuple[int, int]], tuple[int, int]]] = {
    "argmax": largest_pixel_xy,
    "centroid": centroid_xy,
    "region": region_xy,
}


def point_prompt(
    phrase_map: np.ndarray, view: View, image_hw: tuple[int, int], read_out: ReadOut = "argmax"
) -> tuple[int, int]:
    """`point_xy`: the pixel where `phrase_map`, float32 [h, w] over `view`, is largest after bicubic upsampling to the
    image, or that another way reads out of it. Raises ValueError as `aas.geometry.largest_pixel_xy`."""
    return READ_OUTS[read_out](phrase_map, view, image_hw)


def points_prompt(
    phrase_map: np.ndarray, view: View, image_hw: tuple[int, int], positive: int = 1, negative: int = 0
) -> Prompt:
    """Up to `positive` points at the peaks of `phrase_map`, float32 [h, w] over `view`, the first that of
    `point_prompt`, and up to `negative` points not on the thing, at its troughs. What counts as a peak says
    `aas.geometry.peaks_xy`. `image_hw` in pixels, as the points are."""
    on_thing = peaks_xy(phrase_map, view, image_hw, positive)
    elsewhere = peaks_xy(-phrase_map, view, image_hw, negative) if negative else []
    elsewhere = [xy for xy in elsewhere if xy not in on_thing]  # of a constant map both are the same pixel
    labels = np.array([1] * len(on_thing) + [0] * len(elsewhere), np.int64)
    return Prompt(np.array(on_thing + elsewhere, np.float32), labels)


def mask_prompt(phrase_map: np.ndarray, view: View, image_hw: tuple[int, int], mask_side: int = 256) -> Prompt:
    """A coarse mask and a box, as the reference makes them. `mask_side`: the segmenter's mask resolution.

    `phrase_map` float32 [h, w] over `view`. The map on the image over FULL_ATTENTION is the probability of each pixel;
    its logits are resized (bicubic) so that the long side has `mask_side` cells, and padded with zeros at the right or
    the bottom to a square, SAM's mask input. The box holds all pixels above ON_THING; the whole image where there is
    none.
    """
    height, width = image_hw
    probability = torch.from_numpy(map_on_image(phrase_map, view, image_hw)) / FULL_ATTENTION
    scale = mask_side / max(image_hw)
    size_hw = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))  # as SAM resizes the image
    logits = torch.logit(probability.clamp(*CERTAINTY))[None, None]
    small = F.interpolate(logits, size=size_hw, mode="bicubic", align_corners=False)
    square = F.pad(small, (0, mask_side - size_hw[1], 0, mask_side - size_hw[0]))[0, 0]
    return Prompt(box_xyxy=_box_of(probability.numpy() > ON_THING), mask_logits=square.numpy())


def _box_of(on_thing: np.ndarray) -> np.ndarray:
    """The smallest box around all true pixels of [H, W], the whole image where there is none; float32 [4]."""
    height, width = on_thing.shape
    if not on_thing.any():
        return np.array([0, 0, width, height], np.float32)
    x, y = np.flatnonzero(on_thing.any(axis=0)), np.flatnonzero(on_thing.any(axis=1))
    return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float32)


def stacked(prompts: Sequence[Prompt]) -> list[tuple[list[int], dict[str, np.ndarray]]]:
    """The arguments of `aas.segmenters.Segmenter.masks` for prompts of any kinds: batches, each with the indices of its
    prompts.

    Prompts of a batch have the same parts and equally many points. Rows of points are not filled up: SAM sees a point
    that is none as one more token, and a prompt's mask would depend on its batch.
    """
    batches: dict[tuple[object, ...], list[int]] = {}
    parts = [_parts(prompt) for prompt in prompts]
    for i, arrays in enumerate(parts):
        kind = tuple((name, array.shape) for name, array in arrays.items())
        batches.setdefault(kind, []).append(i)
    return [
        (indices, {name: np.stack([parts[i][name] for i in indices]) for name in parts[indices[0]]})
        for indices in batches.values()
    ]


def _parts(prompt: Prompt) -> dict[str, np.ndarray]:
    arrays = {
        "points_xy": prompt.points_xy,
        "labels": prompt.labels,
        "boxes_xyxy": prompt.box_xyxy,
        "mask_logits": prompt.mask_logits,
    }
    return {name: array for name, array in arrays.items() if array is not None}
