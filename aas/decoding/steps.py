"""One decode step of all slots, replayed as a CUDA graph where there is a GPU."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aas import capture
from aas.decoding.slots import Slots

Run = Callable[[], Tensor]
Recorder = Callable[[Run], Run]  # from what runs a step to what replays it, without running it

log = logging.getLogger(__name__)


def cuda_recorder() -> Recorder:
    """Records steps as CUDA graphs, whose memory they share."""
    pool = torch.cuda.graph_pool_handle()

    def record(run: Run) -> Run:
        graph = torch.cuda.CUDAGraph()
        # Of this thread alone: others may pin memory, or time something, meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            logits = run()

        def replay() -> Tensor:
            graph.replay()
            return logits

        return replay

    return record


class Steps:
    """What goes into a step of one token for each slot: `token` int64 [n, 1]; `position` int64 [..., n, 1] (families
    with several axes have more dimensions in front); `row` int64 [n]: of the stash, where the step's query goes.

    Called, it runs the first `slots.size` of them and gives logits [size, V]. A step of a size and length that came
    before is recorded, if there is a `record`, and replayed from then on: no Python runs in it.
    """

    def __init__(self, model: Callable[..., Any], slots: Slots, dtype: torch.dtype, record: Recorder | None = None):
        device = slots.length.device
        self.model, self.slots, self.dtype, self.record = model, slots, dtype, record
        self.token = torch.zeros(slots.n_slots, 1, dtype=torch.int64, device=device)
        self.row = torch.zeros(slots.n_slots, dtype=torch.int64, device=device)
        self.position: Tensor | None = None
        self._ran: set[tuple[int, int]] = set()
        self._recorded: dict[tuple[int, int], Run] = {}

    def enter(self, slots: Sequence[int], lengths: Sequence[int], token: Tensor, position: Tensor) -> None:
        """The first tokens int64 [B] of answers to prompts of so many tokens, at their positions [..., B]."""
        if self.position is None:
            self.position = position.new_zeros(*position.shape[:-1], self.slots.n_slots, 1)
        where = torch.tensor(slots, device=token.device)
        self.token[where, 0], self.position[..., where, 0] = token, position
        self.row[where] = 1 % capture.STASHED_STEPS
        self.slots.length[where] = torch.tensor(lengths, device=token.device)

    def move(self, source: int, target: int) -> None:
        """What is in one slot goes into another."""
        assert self.position is not None
        for tensor in (self.token, self.row):
            tensor[target] = tensor[source]
        self.position[..., target, :] = self.position[..., source, :]
        self.slots.move(source, target)

    def __call__(self) -> Tensor:
        key = self.slots.size, self.slots.used
        if self.record is None or key not in self._ran:  # the first time warms up what a graph cannot
            self._ran.add(key)
            return self._run()
        if key not in self._recorded:
            try:
                self._recorded[key] = self.record(self._run)
            except RuntimeError as error:
                log.warning("steps are not recorded as CUDA graphs, which this model does not allow: %s", error)
                self.record = None
                return self._run()
        return self._recorded[key]()

    def _run(self) -> Tensor:
        slots, n = self.slots, self.slots.size
        assert self.position is not None
        seen = slots.visible()
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
        logits = self.model(
            input_ids=self.token[:n],
            position_ids=self.position[..., :n, :],
            attention_mask=mask[:, None, None],
            past_key_values=slots.cache,
            use_cache=True,
            return_dict=True,
        ).logits[:, -1]
        slots.advance()
        self.row.add_(1).remainder_(capture.STASHED_STEPS)
        self.position.add_(1)
        return logits
