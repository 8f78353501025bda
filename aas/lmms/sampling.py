"""Sampling whose draws belong to an image, not to its batch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


class GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to the scores: the largest of them then is a draw from their softmax.

    Every sample of the batch has a generator of its own, seeded alike, so that its answer does not depend on its
    batch or its place.
    """

    def __init__(self, batch_size: int, seed: int, device: torch.device):
        self.generators = [torch.Generator(device).manual_seed(seed) for _ in range(batch_size)]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        noise = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, generator in zip(noise, self.generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log_()


@dataclass(frozen=True)
class Sampling:
    """Draw every token: `temperature` > 0 divides the scores, `top_p` keeps the likeliest tokens of that total."""

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature <= 0 or not 0 < self.top_p <= 1:
            raise ValueError("Sampling needs a temperature above 0 and a top-p above 0 and at most 1.")

    def processors(self, batch_size: int, seed: int, device: torch.device) -> LogitsProcessorList:
        """What `generate` takes to draw tokens: one seeded generator for each of `batch_size` samples."""
        processors = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_p < 1:
            processors.append(TopPLogitsWarper(self.top_p))
        processors.append(GumbelNoise(batch_size, seed, device))
        return processors
