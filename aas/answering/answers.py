"""A server answers in the place of an LMM, which then reads its answers."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol, Self, TypeVar

from aas.answering.feed import ask_all
from aas.answering.protocol import Said, Wanted
from aas.answering.server import Server
from aas.images import ImageLike
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.prompt_checks import check_answer

log = logging.getLogger(__name__)


class Answerable(Protocol):
    """An item that takes an answer."""

    def answered(self, said: Said) -> Self: ...


A = TypeVar("A", bound=Answerable)


@dataclass(frozen=True)
class Served:
    """`server` answers as `lmm` would with `options`."""

    server: Server
    lmm: LMM
    options: AskOptions

    def fed(
        self, items: Iterable[A], asked_of: Callable[[A], tuple[ImageLike, str]]
    ) -> Iterator[tuple[A, Exception | None]]:
        """As `ask_all`, with the answers in the items; tokens only where they are this LMM's."""
        for item, said in ask_all(self.server, self.wanted, items, asked_of):
            if isinstance(said, Exception):
                yield item, said
            else:
                yield item.answered(fitting(said, self.lmm)), None

    @property
    def wanted(self) -> Wanted:
        """As the LMM itself would be asked."""
        longest = self.options.max_new_tokens or self.lmm.max_new_tokens
        drawn = self.options.sampling
        how = (drawn.temperature, drawn.top_p) if drawn else (0.0, 1.0)
        return Wanted(longest, *how, self.options.seed)


def fitting(said: Said, lmm: LMM) -> Said:
    """The answer without its tokens where these are another model's, or write more than its text, as a reasoning that
    the server keeps apart."""
    try:
        check_answer(lmm.model, lmm.tokenizer, list(said.token_ids or ()), said.text if said.token_ids else None)
    except ValueError as error:
        _say_once(lmm.name, str(error))
        return Said(said.text)
    return said


@cache
def _say_once(name: str, error: str) -> None:
    log.warning("the server's tokens are not those of %s, its words are taken alone (%s)", name, error)
