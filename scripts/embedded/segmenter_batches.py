"""Batches of augmented photographs with prompts and masks, by step."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import training
from segmenter_data import Example, Photograph, augment, box_of, choose_things, click, group_of
from torch import Tensor

PHOTOGRAPHS_PER_STEP, PROMPTS, PROMPTS_AGAIN = 4, 8, 2


@dataclass(frozen=True)
class Batch(training.Batch):
    """Batch `step`: B photographs with K prompts each, in input pixels.

    `pixels` [B, 3, SIZE, SIZE] in [-1, 1]; `points` [B, K, 1, 2]; `boxes` [B, PROMPTS_AGAIN, 4]; `fine`
    [B, K, SIZE/2, SIZE/2] in [0, 1], the instances; `whole` and `group` [B, K, SIZE/4, SIZE/4], instances and all of
    their category; `is_complete` [B]: 0 where the category's other things are not known; `semantic` int64
    [B, SIZE/8, SIZE/8].
    """

    pixels: Tensor
    points: Tensor
    boxes: Tensor
    fine: Tensor
    whole: Tensor
    group: Tensor
    is_complete: Tensor
    semantic: Tensor
    step: int


def to_batch(examples: list[Example], rng: np.random.Generator, step: int) -> Batch:
    pixels, points, boxes, fine, group, semantic = [], [], [], [], [], []
    for example in examples:
        chosen = choose_things(example, PROMPTS, rng)
        pixels.append((example.image.astype(np.float32) / 127.5 - 1) * example.valid[..., None])
        points.append([[click(example.masks, i, rng)] for i in chosen])
        boxes.append([box_of(example.masks[i], rng) for i in chosen[:PROMPTS_AGAIN]])
        fine.append(example.masks[chosen])
        group.append(np.stack([group_of(example, i) for i in chosen]))
        semantic.append(example.semantic)

    def stack(arrays: list) -> Tensor:
        return torch.from_numpy(np.stack([np.asarray(a, np.float32) for a in arrays]))

    return Batch(
        stack(pixels).permute(0, 3, 1, 2),
        stack(points),
        stack(boxes),
        stack(fine),
        F.avg_pool2d(stack(fine), 2),
        F.avg_pool2d(stack(group), 2),
        stack([example.is_complete for example in examples]),
        stack(semantic).long(),
        step,
    )


class MaskBatches:
    """A step's batch depends on `seed` and the step alone; every photograph comes once before any comes twice."""

    def __init__(self, photographs: list[Photograph], seed: int):
        self.photographs, self.seed = photographs, seed

    def _example(self, index: int, rng: np.random.Generator) -> Example:
        i = training.shuffled(index, len(self.photographs), self.seed)
        while True:
            example = augment(self.photographs[i], self.photographs[rng.integers(len(self.photographs))], rng)
            if example is not None:
                return example

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        first = step * PHOTOGRAPHS_PER_STEP
        return to_batch([self._example(first + i, rng) for i in range(PHOTOGRAPHS_PER_STEP)], rng, step)
