"""The attention of answers in slots: queries are written down as steps go by, rows computed from many at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from aas import capture
from aas.capture import AttentionCapture, Call, Selection, attention_rows
from aas.decoding.slots import Slots, Unsuited


class SlotCapture(AttentionCapture):
    """Looks on while answers are written in `slots`; `row` int64 [n_slots]: where each writes its query.

    Of each layer there is one buffer of queries [n_slots, STASHED_STEPS, H, D], row t of an answer in place
    t % STASHED_STEPS. A recorded step writes into it as one that Python runs.
    """

    def __init__(
        self,
        slots: Slots,
        row: Tensor,
        selection: Selection,
        records: Callable[[nn.Module], bool] | None = None,
    ):
        super().__init__(torch.zeros(0, 0, dtype=torch.int64), selection, None, records)
        self.slots, self.row = slots, row
        self._entering: Sequence[int] = ()
        self._queries: dict[int, Tensor] = {}
        self._calls: dict[int, tuple[float, float | None, Tensor | None]] = {}  # scaling, softcap, sinks

    def begin(self, selection: Selection) -> None:
        """Other answers, of which this is wanted: the same layers as before."""
        self.selection, self._finite = selection, {}

    @contextmanager
    def entering(self, slots: Sequence[int]) -> Iterator[None]:
        """Prompts are read that go into these slots."""
        self._entering = slots
        try:
            yield
        finally:
            self._entering = ()

    def record(self, index: int, call: Call) -> None:
        """Writes down the last query of each sequence."""
        self._in_pass.add(index)
        if call.window:
            raise Unsuited("a sliding window")
        if self.selection.layers is not None and index not in self.selection.layers:
            return
        query = call.query[:, :, -1]
        if index not in self._queries:
            self._calls[index] = call.scaling, call.softcap, call.sinks
            self._queries[index] = query.new_zeros(self.slots.n_slots, capture.STASHED_STEPS, *query.shape[1:])
        if self._entering:
            for slot, one in zip(self._entering, query, strict=True):
                self._queries[index][slot, 0] = one
            return
        place = self.row[: len(query), None, None, None]
        self._queries[index][: len(query)].scatter_(1, place.expand(-1, 1, *query.shape[1:]), query[:, None])

    def move(self, source: int, target: int) -> None:
        """What is in one slot goes into another."""
        for queries in self._queries.values():
            queries[target] = queries[source]

    def rows_of(
        self, slots: Sequence[int], n_prompts: Sequence[int], first: Sequence[int], n: int, columns: Sequence[Tensor]
    ) -> Tensor:
        """`n` rows of the answers in some slots, from row `first` of each, a multiple of STASHED_STEPS: float32
        [slots, n, N], or [slots, layers, n, N], or [slots, layers, heads, n, N]. `columns` int64 [N]: of each."""
        if not self._queries:
            self.check()  # says what there is
        here = slots if list(slots) != list(range(slots[0], slots[-1] + 1)) else slice(slots[0], slots[-1] + 1)
        device = self.slots.length.device
        start = torch.tensor([prompt + row for prompt, row in zip(n_prompts, first, strict=True)], device=device)
        n_keys = int(max(prompt + row + n for prompt, row in zip(n_prompts, first, strict=True)))
        n_keys = min(n_keys, self.slots.room)
        seen = torch.arange(n_keys, device=device) < (start[:, None] + torch.arange(n, device=device))[..., None]
        # Added, it costs a tenth of what filling the scores of all heads of each layer does.
        mask = torch.zeros(seen.shape, device=device).masked_fill_(~seen, -torch.inf)
        padded = pad_sequence(list(columns), batch_first=True).to(device)
        found: list[Tensor] = []
        for index in sorted(self._queries):
            scaling, softcap, sinks = self._calls[index]
            query = self._queries[index][here, :n].transpose(1, 2)
            keys = self.slots.layers[index].keys[here, :, :n_keys]
            kept = self.reduced(index, attention_rows(query, keys, mask[:, None], scaling, padded, softcap, sinks))
            if self.selection.keep == "mean" and found:
                found[0] += kept
            else:
                found.append(kept)
        return found[0] / len(self._finite) if self.selection.keep == "mean" else torch.stack(found, dim=1)
