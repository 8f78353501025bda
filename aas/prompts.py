"""From a phrase's map to a prompt for the segmenter."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from aas.geometry import largest_pixel_xy, map_on_image, peaks_xy
from aas.records import Prompt, View

NO_POINT = -10  # the label that fills up rows of points of unequal length
FULL_ATTENTION = 0.0002  # the attention of a cell that counts as certainly on the thing, in the reference's mask prompts
ON_THING = 0.75  # the share of it from which a pixel belongs to the box
CERTAINTY = (0.001, 0.999)


def point_prompt(phrase_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    """`point_xy`: the pixel where the map, upsampled bicubically to the image, is largest."""
    return largest_pixel_xy(phrase_map, view, image_hw)


def points_prompt(
    phrase_map: np.ndarray, view: View, image_hw: tuple[int, int], positive: int = 1, negative: int = 0
) -> Prompt:
    """Up to `positive` points at the peaks of the map, the first that of `point_prompt`, and up to `negative` points
    not on the thing, at its troughs. What counts as a peak says `aas.geometry.peaks_xy`."""
    on_thing = peaks_xy(phrase_map, view, image_hw, positive)
    elsewhere = peaks_xy(-phrase_map, view, image_hw, negative) if negative else []
    elsewhere = [xy for xy in elsewhere if xy not in on_thing]  # of a constant map both are the same pixel
    labels = np.array([1] * len(on_thing) + [0] * len(elsewhere), np.int64)
    return Prompt(np.array(on_thing + elsewhere, np.float32), labels)


def mask_prompt(phrase_map: np.ndarray, view: View, image_hw: tuple[int, int], mask_side: int = 256) -> Prompt:
    """A coarse mask and a box, as the reference makes them.

    The map on the image over FULL_ATTENTION is the probability of each pixel; its logits are resized (bicubic) so that the
    long side has `mask_side` cells, and padded with zeros at the right or the bottom to a square, SAM's mask input.
    The box holds all pixels above ON_THING; the whole image where there is none.
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


def stacked(prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """The arguments of `aas.segmenters.Segmenter.masks` for prompts of one kind, one or more, in one decoder batch.

    Rows of points are filled up to equal length with NO_POINT. Raises ValueError when some prompts have a part (points,
    box, mask) that others lack.
    """
    arguments: dict[str, np.ndarray] = {}
    points = [prompt.points_xy for prompt in prompts if prompt.points_xy is not None]
    if points:
        most = max(len(xy) for xy in points)
        arguments["points_xy"] = np.stack([np.pad(xy, ((0, most - len(xy)), (0, 0))) for xy in points])
        labels = [prompt.labels for prompt in prompts if prompt.labels is not None]
        arguments["labels"] = np.stack([np.pad(row, (0, most - len(row)), constant_values=NO_POINT) for row in labels])
    boxes = [prompt.box_xyxy for prompt in prompts if prompt.box_xyxy is not None]
    if boxes:
        arguments["boxes_xyxy"] = np.stack(boxes)
    masks = [prompt.mask_logits for prompt in prompts if prompt.mask_logits is not None]
    if masks:
        arguments["mask_logits"] = np.stack(masks)
    if not arguments or any(len(array) != len(prompts) for array in arguments.values()):
        raise ValueError("All prompts of a batch must have the same parts: points, a box, a mask, or several of these.")
    return arguments
