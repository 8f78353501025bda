"""An answer is heard while a model writes it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from aas.lmms.grids import on_grid
from aas.lmms.prepared import AskOptions, Prepared
from aas.phrases.alignment import Spelling
from aas.records import Answer, AttentionMaps

if TYPE_CHECKING:
    from aas.lmms.base import LMM

# Called with the answer so far, of the tokens that wrote whole characters, and what gives their maps; None where maps
# are made when all is written.
Hear = Callable[[Answer, "Callable[[], AttentionMaps] | None"], None]


class Listener(BaseStreamer):
    """Whom the tokens of one answer are given to, one by one, by `generate` too. `so_far`: float32 [..., T, N] of those
    until now; None where maps are made in the end."""

    def __init__(
        self, lmm: "LMM", so_far: Callable[[], Tensor] | None, prepared: Prepared, options: AskOptions, hear: Hear
    ):
        self.so_far, self.prepared, self.options, self.hear = so_far, prepared, options, hear
        self.spelling = Spelling(lmm.tokenizer)
        self.in_prompt = True

    def put(self, value: Tensor) -> None:
        """The prompt first, then tokens int64 [1]."""
        if self.in_prompt:
            self.in_prompt = False
            return
        self.add(int(value))

    def add(self, token_id: int) -> None:
        """The next token of the answer."""
        self.spelling.add(token_id)
        text, spans = self.spelling.so_far()
        answer = Answer(self.prepared.question, text, tuple(self.spelling.token_ids[: len(spans)]), tuple(spans))
        self.hear(answer, None if self.so_far is None else self._maps)

    def _maps(self) -> AttentionMaps:
        assert self.so_far is not None
        rows = self.so_far().numpy()
        return AttentionMaps(*on_grid(rows, self.prepared.grids, self.options.view), self.options.alignment)

    def end(self) -> None:
        """The answer is written; whoever asked gets all of it."""
