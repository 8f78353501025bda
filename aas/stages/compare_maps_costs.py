"""What each map source costs: the time of an answer with it alone, and the bytes that are kept for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import median

import numpy as np
import torch
from torch import Tensor

from aas.captured import Captured
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions


@dataclass(frozen=True)
class Costs:
    """Of each source, `seconds` and `n_bytes` for each photograph that was looked at."""

    lmm: LMM
    sources: Sequence[str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    n_bytes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Photographs that were looked at."""
        return len(next(iter(self.seconds.values()), []))

    def look(self, image: np.ndarray, question: str, token_ids: Sequence[int] | None, n_tokens: int = 24) -> None:
        """One photograph uint8 [H, W, 3] with a given answer, or with the model's own of `n_tokens` at most."""
        for source in self.sources:
            options = AskOptions(n_tokens, maps=(source,))
            ready = self.lmm.prepare(image, question, None, token_ids, options)
            started = _clock(self.lmm.device)
            self.lmm.run([ready], options)
            self.seconds.setdefault(source, []).append(_clock(self.lmm.device) - started)
            if ready.answer_ids is not None:
                (kept,) = self.lmm.replayed([ready], [ready.answer_ids], options)
                self.n_bytes.setdefault(source, []).append(bytes_of(kept))

    def medians(self) -> dict[str, dict[str, float]]:
        """Source -> `milliseconds` and `bytes` a photograph."""
        return {
            source: {
                "milliseconds": 1000 * median(self.seconds[source]),
                **({"bytes": median(self.n_bytes[source])} if source in self.n_bytes else {}),
            }
            for source in self.seconds
        }


def _clock(device: torch.device) -> float:
    """Seconds: of this process's own computing on a CPU, which others share, else those that pass."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def bytes_of(kept: Tensor | Captured) -> int:
    """Of all tensors that were kept of an answer; the model's own weights are not."""
    if isinstance(kept, Tensor):
        return kept.numel() * kept.element_size()
    parts = [getattr(kept, one.name) for one in fields(kept) if one.name != "outputs"]
    tensors = [one for part in parts for one in (part.values() if isinstance(part, dict) else [part])]
    return sum(one.numel() * one.element_size() for one in tensors if isinstance(one, Tensor))
