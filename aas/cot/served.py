"""A server that thinks and answers in the model's place; the model reads its thoughts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from aas.answering.answers import Served
from aas.answering.feed import ask_all
from aas.answering.server import Shown
from aas.cot import prompts
from aas.lmms.base import LMM
from aas.lmms.prepared import Prepared
from aas.lmms.writing import first_words


def said_by(served: Served, asked: Sequence[tuple[Sequence[Shown], str]]) -> list[str]:
    """The server's answers to questions about images, all at once. Raises ValueError for one that has none."""
    found: dict[int, str] = {}
    both = [(list(shown), question) for shown, question in asked]
    for i, said in ask_all(served.server, served.wanted, range(len(both)), lambda i: both[i]):
        if isinstance(said, Exception):
            raise said
        found[i] = said.text
    return [found[i] for i in range(len(asked))]


def thought_ids(lmm: LMM, prepared: Prepared, thought: str) -> Tensor:
    """The tokens int64 [T] of a server's thought behind the words that a thought begins with, whether it has them or
    not. Raises ValueError where the model's tokenizer joins them with what follows."""
    own = thought.strip()
    if own.lower().startswith(prompts.BEGINNING.lower()):
        own = own[len(prompts.BEGINNING) :].strip()
    first = first_words(lmm, prompts.BEGINNING, prepared)
    whole = first_words(lmm, f"{prompts.BEGINNING} {own}", prepared)
    if not torch.equal(whole[: len(first)], first):
        raise ValueError(f"{lmm.name} cannot read the server's thought {own!r} behind the words that it begins with.")
    return whole[len(first) :]
