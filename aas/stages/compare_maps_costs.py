"""What each map source costs: the time of an answer with it alone, and the bytes that are kept for it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from statistics import median

import numpy as np
import torch
from torch import Tensor

from aas.internals import Internals
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sources import captured, watch_of


@dataclass(frozen=True)
class Costs:
    """Of each source, the `seconds` of each photograph that was looked at, and the bytes of the first one."""

    lmm: LMM
    sources: Sequence[str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    n_bytes: dict[str, int] = field(default_factory=dict)

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
            if ready.answer_ids is not None and source not in self.n_bytes:
                self.n_bytes[source] = bytes_kept(self.lmm, ready, options)

    def medians(self) -> dict[str, dict[str, float]]:
        """Source -> `milliseconds` and, of given answers, `bytes` a photograph."""
        found = {source: {"milliseconds": 1000 * median(seconds)} for source, seconds in self.seconds.items()}
        for source, n in self.n_bytes.items():
            found[source]["bytes"] = n
        return found


def _clock(device: torch.device) -> float:
    """Seconds: of this process's own computing on a CPU, which others share, else those that pass."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def bytes_kept(lmm: LMM, ready: Prepared, options: AskOptions) -> int:
    """Of all tensors that are kept of a given answer, before maps are made of them; the model's weights are none."""
    assert ready.answer_ids is not None
    answers = [ready.answer_ids]
    inputs, columns, rows = lmm.replay_inputs([ready], answers, options)
    watch = watch_of(lmm, [ready], columns, options, rows)
    with lmm.watched(watch):
        lmm.model(**inputs, **lmm.forward_arguments(inputs))
    if not isinstance(watch, Internals):
        return watch.maps().nbytes
    (kept,) = captured(lmm, watch, [ready], answers, options)
    parts = [getattr(kept, one.name) for one in fields(kept) if one.name != "outputs"]
    tensors = [one for part in parts for one in (part.values() if isinstance(part, dict) else [part])]
    return sum(one.nbytes for one in tensors if isinstance(one, Tensor))
