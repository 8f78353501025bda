"""An answer is heard while a model writes it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from aas.capture import AttentionCapture
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
    """What `generate` gives the tokens of one answer to, one by one."""

    def __init__(self, lmm: "LMM", watch: AttentionCapture, prepared: Prepared, options: AskOptions, hear: Hear):
        self.watch, self.prepared, self.options, self.hear = watch, prepared, options, hear
        self.spelling = Spelling(lmm.tokenizer)
        self.in_prompt = True

    def put(self, value: Tensor) -> None:
        """The prompt first, then tokens int64 [1]."""
        if self.in_prompt:
            self.in_prompt = False
            return
        self.spelling.add(int(value))
        text, spans = self.spelling.so_far()
        answer = Answer(self.prepared.question, text, tuple(self.spelling.token_ids[: len(spans)]), tuple(spans))
        # A subclass of the capture captures what its sources make maps of in the end.
        self.hear(answer, self._maps if type(self.watch) is AttentionCapture else None)

    def _maps(self) -> AttentionMaps:
        rows = self.watch.so_far()[0].numpy()
        return AttentionMaps(*on_grid(rows, self.prepared.grids, self.options.view), self.options.alignment)

    def end(self) -> None:
        """The answer is written; whoever asked gets all of it."""
