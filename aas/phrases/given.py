"""Answers that are given: their tokens, and whether these write their words."""

import unicodedata
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from aas.phrases.alignment import decode_with_spans

SHOWN = 80  # characters of an answer in an error


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text, of which no word is a special token: "</s>" are four characters that somebody wrote."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def check_written(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], text: str) -> None:
    """ValueError where the tokens write other words than `text`.

    White space, case, and how a character is composed may differ: some tokenizers make these alike.
    """
    written = decode_with_spans(tokenizer, token_ids)[0]
    if _alike(written) == _alike(text):
        return
    # Engines may keep the words of special tokens in the text, or leave out those that mark a reasoning.
    for skip in (False, True):
        if _alike(tokenizer.decode(token_ids, skip_special_tokens=skip)) == _alike(text):
            return
    raise ValueError(
        f"The tokens of the given answer write {_start(written)}, not {_start(text)}: they are another model's, or the "
        "model's tokenizer lacks some of the characters."
    )


def _alike(text: str) -> str:
    composed = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in composed if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))


def _start(text: str) -> str:
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
