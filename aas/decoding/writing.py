"""The loop: prompts enter free slots, all slots take a step, answers that have ended leave. Nothing in it waits for the
GPU but the reading of tokens, one step late."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aas import capture
from aas.capture import NOTHING
from aas.decoding.engine import Engine

PROMPT_TOKENS_AT_ONCE = 16384  # read in one pass: a GPU is busy with far fewer, and their hidden states need memory


@dataclass(frozen=True)
class Prompt:
    """What is known of a prompt before it is read: its tokens, and the columns int64 [N] of its image."""

    n_tokens: int
    columns: Tensor


@dataclass(frozen=True)
class Read:
    """What the model makes of some prompts: logits [B, V] of what follows, and the position int64 [..., B] that the
    first token of the answer has."""

    logits: Tensor
    position: Tensor


@dataclass(eq=False)
class Written:
    """An answer: its tokens so far, log p of each, and float32 [..., T, N] on the CPU in the end."""

    index: int
    prompt: Prompt
    token_ids: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)
    maps: Tensor | None = None
    is_broken: bool = False  # a score was no number
    has_ended: bool = False
    n_chosen: int = 0  # tokens, of which the last may not have been looked at yet
    n_computed: int = 0  # rows
    parts: list[Tensor] = field(default_factory=list)

    @property
    def n_stashed(self) -> int:
        """Rows whose queries are stashed."""
        return self.n_chosen - self.n_computed

    @property
    def n_pending(self) -> int:
        """Of these rows, those that belong to a token, for all that is known."""
        return self.n_stashed - (self.n_chosen - len(self.token_ids)) * self.has_ended

    @property
    def n_keys(self) -> int:
        """That the next step sees."""
        return self.prompt.n_tokens + self.n_chosen


# Of logits [B, V] of the answers to these prompts (None: of nobody), float32 [3, B]: a token, its log p, and whether
# a score was no number.
Choose = Callable[[Tensor, Sequence[int | None]], Tensor]


class Writing:
    """Answers to `prompts`, of at most `limit` tokens, ended by one of `ends`; `at_once` at a time.

    `read`: has the model read the prompts of these indices into these slots.
    """

    def __init__(
        self,
        engine: Engine,
        prompts: Sequence[Prompt],
        read: Callable[[Sequence[int], Sequence[int]], Read],
        choose: Choose,
        ends: Iterable[int],
        limit: int,
        at_once: int,
    ):
        self.engine, self.read, self.choose = engine, read, choose
        self.ends, self.limit = frozenset(ends), limit
        self.answers = [Written(index, prompt) for index, prompt in enumerate(prompts)]
        # The longest first: like lengths are read together, and what needs most memory is tried at once.
        self.waiting = deque(sorted(self.answers, key=lambda one: -one.prompt.n_tokens))
        self.slots: list[Written | None] = [None] * at_once
        self.unread: deque[tuple[list[Written | None], Tensor, torch.cuda.Event | None]] = deque()
        self.hear_first: Callable[[int], None] | None = None  # told of the first answer's tokens
        self.engine.slots.size = 0

    def run(self) -> list[Written]:
        """All answers, in the order of their prompts."""
        while self.waiting or self._going_on():
            self._admit()
            self._step()
            self._look(self.engine.lag)
        self._leave(range(len(self.slots)))
        return self.answers

    def so_far(self, index: int) -> Tensor:
        """Float32 [..., T, N] on the CPU of an answer that is being written. What is stashed stays so: in the end rows
        are computed together as if nobody had looked, since a product of fewer rows may round in another way."""
        one = self.answers[index]
        n_new = len(one.token_ids) - one.n_computed
        parts = [*one.parts, *([self._rows([(self.slots.index(one), one)], n_new)[0]] if n_new > 0 else [])]
        return torch.cat([part.cpu() for part in parts], dim=-2)[..., : len(one.token_ids), :]

    def _going_on(self) -> list[int]:
        """The slots whose answers are not at their end."""
        return [slot for slot, one in enumerate(self.slots) if one is not None and not one.has_ended]

    # --------------------------------------------------------------------------------------- entering and leaving

    def _admit(self) -> None:
        free = [slot for slot, one in enumerate(self.slots) if one is None or one.has_ended]
        if not self.waiting:
            self._shrink()
        elif len(free) >= max(1, len(self.slots) // 8):  # several together: a pass for each would cost more
            free = free[: len(self.waiting)]
            self._leave(free)
            while free:
                n = self._n_read_together(len(free))
                self._enter([self.waiting.popleft() for _ in range(n)], free[:n])
                free = free[n:]

    def _n_read_together(self, most: int) -> int:
        return max(1, min(most, PROMPT_TOKENS_AT_ONCE // self.waiting[0].prompt.n_tokens))

    def _enter(self, answers: Sequence[Written], slots: Sequence[int]) -> None:
        lengths = [one.prompt.n_tokens for one in answers]
        with self.engine.capture.entering(slots):
            read = self.read([one.index for one in answers], slots)
        chosen = self.choose(read.logits, [one.index for one in answers])
        self.engine.steps.enter(slots, lengths, chosen[0].long(), read.position)
        for slot, one in zip(slots, answers, strict=True):
            self.slots[slot], one.n_chosen = one, 1
        self._note(answers, chosen)
        self.engine.slots.size = max(self.engine.slots.size, self.engine.size_for(max(slots) + 1))

    def _leave(self, slots: Iterable[int]) -> None:
        """The answers in these slots have ended, or there are none."""
        leaving = [slot for slot in slots if self.slots[slot] is not None]
        self._compute(leaving)
        for slot in leaving:
            one = self.slots[slot]
            assert one is not None
            if one.parts:
                one.maps = torch.cat([part.cpu() for part in one.parts], dim=-2)[..., : len(one.token_ids), :]
            one.parts, self.slots[slot] = [], None

    def _shrink(self) -> None:
        """Fewer slots take part where answers have ended and none follow."""
        slots, going_on = self.engine.slots, self._going_on()
        size = self.engine.size_for(len(going_on))
        if not going_on or size >= slots.size:
            return
        self._leave(slot for slot in range(len(self.slots)) if slot not in going_on)
        free = iter([slot for slot in range(min(size, len(self.slots))) if self.slots[slot] is None])
        for source in (slot for slot in going_on if slot >= size):
            target = next(free)
            self.engine.move(source, target)
            self.slots[target], self.slots[source] = self.slots[source], None
        slots.size = size

    # ------------------------------------------------------------------------------------------------------ steps

    def _step(self) -> None:
        if any(one.n_chosen >= self.limit for one in self._answers(self._going_on())):
            self._look(0)
        going_on = self._answers(self._going_on())
        if not going_on:
            return
        self._compute(
            [slot for slot, one in enumerate(self.slots) if one is not None and one.n_stashed == capture.STASHED_STEPS]
        )
        slots = self.engine.slots
        slots.look_at(self.engine.keys_for(max(one.n_keys for one in going_on)))
        here = [*self.slots, *[None] * slots.size][: slots.size]
        chosen = self.choose(self.engine.steps(), [None if one is None else one.index for one in here])
        self.engine.steps.token[: slots.size, 0] = chosen[0].long()
        for one in here:
            if one is not None:
                one.n_chosen += 1
        self._note(here, chosen)

    def _answers(self, slots: Iterable[int]) -> list[Written]:
        return [one for slot in slots if (one := self.slots[slot]) is not None]

    def _compute(self, slots: Sequence[int]) -> None:
        """The rows that the answers in these slots have stashed."""
        pending = [(slot, one) for slot in slots if (one := self.slots[slot]) is not None and one.n_pending > 0]
        if not pending or self.engine.capture.selection is NOTHING:
            return
        rows = self._rows(pending, max(one.n_pending for _, one in pending))
        for (_, one), maps in zip(pending, rows, strict=True):
            one.parts.append(maps[..., : one.n_pending, : len(one.prompt.columns)])
            one.n_computed += one.n_pending

    def _rows(self, answers: Sequence[tuple[int, Written]], n: int) -> Tensor:
        return self.engine.capture.rows_of(
            [slot for slot, _ in answers],
            [one.prompt.n_tokens for _, one in answers],
            [one.n_computed for _, one in answers],
            n,
            [one.prompt.columns for _, one in answers],
        )

    # ----------------------------------------------------------------------------------------- looking at tokens

    def _note(self, answers: Sequence[Written | None], chosen: Tensor) -> None:
        if chosen.device.type != "cuda":
            self.unread.append((list(answers), chosen.cpu(), None))
            return
        there = torch.empty(chosen.shape, dtype=chosen.dtype, pin_memory=True).copy_(chosen, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self.unread.append((list(answers), there, event))

    def _look(self, n_left: int) -> None:
        """Read the tokens of all steps but the last `n_left`."""
        while len(self.unread) > n_left:
            answers, chosen, event = self.unread.popleft()
            if event is not None:
                event.synchronize()
            for one, token, log_p, broken in zip(answers, *chosen.tolist(), strict=True):
                if one is not None and not one.has_ended:
                    one.token_ids.append(int(token))
                    one.log_p.append(log_p)
                    one.is_broken |= bool(broken)
                    one.has_ended = int(token) in self.ends or len(one.token_ids) == self.limit
                    if one.index == 0 and self.hear_first is not None:
                        self.hear_first(int(token))
