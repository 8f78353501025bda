"""How tokens are chosen: one pass for each, of finite numbers, by draws that belong to an image, not to its batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from aas.capture import CaptureError

# What a checkpoint's own settings may say otherwise, and what then would change which forward passes there are, what
# they see or what `generate` returns. The settings that only change which token is chosen stay the checkpoint's own.
_ITS_OWN: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "use_cache": True,  # without, every pass has all the queries
    "prefill_chunk_size": None,  # the prompt in several passes
    "prompt_lookup_num_tokens": None,  # and what follows: several tokens in one pass
    "assistant_early_exit": None,
    "use_mtp": None,
    "speculation_type": None,
    "guidance_scale": None,  # a second pass, without the image, for each token
    "penalty_alpha": None,  # contrastive search
    "dola_layers": None,
    "constraints": None,
    "force_words_ids": None,
    "token_healing": None,  # rewrites the end of the prompt
    "max_time": None,  # an answer would depend on its batch, and on the machine
    # A static cache fails for some models; a quantised one needs packages and rounds keys; none changes the answer.
    "cache_implementation": "dynamic",
    "disable_compile": True,  # a static cache would, on a GPU; compiled passes are not looked at
    "remove_invalid_values": False,  # would hide what `FiniteLogits` looks for
    "output_attentions": False,
    "output_hidden_states": False,
    "output_scores": False,
    "output_logits": False,
    "return_dict_in_generate": False,
}
A_PASS_FOR_EACH_TOKEN = {name: value for name, value in _ITS_OWN.items() if hasattr(GenerationConfig(), name)}


class FiniteLogits(LogitsProcessor):
    """Changes no score, and takes note of NaN and infinity: of them the first token is the largest, whichever it is."""

    def __init__(self, broken: "Tensor | bool | None" = None) -> None:
        self.broken = broken  # looked at once, at the end: a GPU does not wait at every token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.look_at(scores)
        return scores

    def look_at(self, scores: Tensor) -> None:
        """Takes note of `scores` [B, vocabulary]. Some may be -inf: tokens that the model's settings forbid."""
        broken = broken_rows(scores).any()
        self.broken = broken if self.broken is None else self.broken | broken

    def check(self) -> None:
        """CaptureError where a score was no number."""
        if self.broken is not None and self.broken:
            raise CaptureError(
                "The scores of the next token are not finite numbers. Load the model in another precision: "
                "--dtype bfloat16 or --dtype float32."
            )


def broken_rows(scores: Tensor) -> Tensor:
    """Bool [B]: where the largest of `scores` [B, vocabulary] is none, or NaN is among them."""
    largest = scores.amax(-1)  # NaN where one is
    return (largest.abs() == torch.inf) | largest.isnan()


class TokenLogProbs(LogitsProcessor):
    """Changes no score, and takes note of how likely each token was that was chosen: by the model's own logits, before
    its checkpoint's settings (a repetition penalty), a temperature or a draw."""

    def __init__(self) -> None:
        self.logits: Tensor | None = None  # of the last pass
        self.before: Tensor | None = None  # those that the next token is chosen by
        self.noted: list[Tensor] = []

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Looks at what the model's passes give: the scores of a call have been changed already."""
        handle = model.register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def _look(self, model: nn.Module, inputs: Any, output: Any) -> None:
        self.logits = output.logits[:, -1]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._note(input_ids)
        self.before = self.logits
        return scores

    def _note(self, token_ids: Tensor) -> None:
        if self.before is not None:
            self.noted.append(log_probs(self.before, token_ids[:, -1]))

    def of(self, sequences: Tensor) -> Tensor:
        """Float32 [B, answer] on the CPU, of what was generated: `sequences` [B, prompt + answer]."""
        self._note(sequences)
        return torch.stack(self.noted, dim=1).cpu()


def log_probs(scores: Tensor, token_ids: Tensor) -> Tensor:
    """Float32 [...]: log p of each of `token_ids` [...] by the softmax of `scores` [..., vocabulary]."""
    scores = scores.float()
    return scores.gather(-1, token_ids[..., None])[..., 0] - scores.logsumexp(-1)


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
