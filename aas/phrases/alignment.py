"""Which characters does each token write? For any tokenizer, in linear time."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from aas.phrases.reasoning import MARK

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
INCOMPLETE = "\ufffd"  # what a tokenizer decodes part of a character to
MAX_RUN = 256  # a longer run of tokens without a complete last character is no text; the bound keeps the time linear


def decode_with_spans(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the tokens, and the half-open character range that each one adds.

    Each token is decoded behind the few before it: byte-level tokenizers split characters, SentencePiece drops the
    first space. Tokens that share a character share its range; special tokens add nothing, but the
    marks of a reasoning do. The ranges follow each other
    without a gap and spell the text, which is stripped; nothing else is cleaned up.
    """
    spelling = Spelling(tokenizer)
    for token_id in token_ids:
        spelling.add(token_id)
    spelling.end()
    return spelling.so_far()


def _special_ids(tokenizer: "PreTrainedTokenizerBase") -> set[int]:
    """Those with a name (end of sequence, …) and those that are only marked as special, like a chat's turn ends; but
    not the marks of a reasoning: without them it would be taken for the answer."""
    added = tokenizer.added_tokens_decoder.items()
    marks = {token_id for token_id, token in added if MARK.fullmatch(token.content)}
    return {*tokenizer.all_special_ids, *(token_id for token_id, token in added if token.special)} - marks


class Spelling:
    """`decode_with_spans` of tokens that come one by one: what it has said of a token it never takes back."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self.token_ids: list[int] = []
        self._tokenizer, self._special = tokenizer, _special_ids(tokenizer)
        self._text = ""  # not stripped
        self._spans: list[Span] = []  # of the tokens that are not special
        self._before: list[int] = []  # the tokens behind which the next ones are decoded, and what they decode to
        self._before_text = ""
        self._run: list[int] = []  # the tokens of the next piece, which ends with a complete character
        self._drafts: list[str] = []  # what each of them made of it

    def add(self, token_id: int) -> None:
        """One more token of the answer."""
        self.token_ids.append(token_id)
        if token_id in self._special:
            return
        self._run.append(token_id)
        behind = self._decode(self._before + self._run)
        # Byte fallback: the bytes of `before` may be a character no longer when another byte follows.
        follows = behind.startswith(self._before_text)
        self._drafts.append(behind[len(self._before_text) :] if follows else self._decode(self._run))
        if not self._drafts[-1].endswith(INCOMPLETE) or len(self._run) >= MAX_RUN:
            self.end()

    def end(self) -> None:
        """No more tokens come: what they have begun is their last character."""
        if not self._run:
            return
        piece, length = self._drafts[-1], len(self._text)
        self._spans += [(length + start, length + end) for start, end in _run_spans(self._drafts)]
        self._text += piece
        # A tokenizer may drop any number of spaces at the start: only behind something visible none is dropped.
        self._before = self._run if piece.strip() else (self._before + self._run)[-MAX_RUN:]
        self._before_text = self._decode(self._before)
        self._run, self._drafts = [], []

    def so_far(self) -> tuple[str, list[Span]]:
        """The text, stripped, and the ranges of the tokens that wrote it: all but those of a begun character."""
        spans, end = [], 0
        remaining = iter(self._spans)
        for token_id in self.token_ids:
            span = (end, end) if token_id in self._special else next(remaining, None)
            if span is None:
                break
            spans.append(span)
            end = span[1]
        return _stripped(self._text, spans)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def _run_spans(drafts: Sequence[str]) -> list[Span]:
    """Which characters of the last draft of a run did each of its tokens write?

    What a draft shares with the last one was complete by then; what follows in it stood for a begun character.
    """
    piece, spans, complete = drafts[-1], [], 0
    # A character can be begun as several, one for each of its bytes: none of these reaches beyond a later draft.
    limits = list(accumulate(map(len, reversed(drafts)), min))[::-1]
    for draft, limit in zip(drafts, limits, strict=True):
        kept = _n_shared(draft, piece)
        end = min(kept + (kept < len(draft)), limit)
        shares = draft.endswith(INCOMPLETE)  # the character that the token before it began, if it began none itself
        spans.append((min(complete, end - 1) if shares else complete, end))
        complete = kept
    return spans


def _n_shared(a: str, b: str) -> int:
    """The length of the beginning that two strings share."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _stripped(text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    lead = len(text) - len(text.lstrip())
    text = text.strip()

    def clamp(i: int) -> int:
        return min(max(i - lead, 0), len(text))

    return text, [(clamp(start), clamp(end)) for start, end in spans]


def overlapping(spans: Sequence[Span], span: Span) -> tuple[int, ...]:
    """Indices of the ranges that share at least one character with `span`; starts and ends of `spans` must ascend."""
    first = bisect_right(spans, span[0], key=lambda other: other[1])
    last = bisect_left(spans, span[1], key=lambda other: other[0])
    return tuple(i for i in range(first, last) if spans[i][0] < spans[i][1])
