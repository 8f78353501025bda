"""Which characters does each token write? For any tokenizer, in linear time."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from aas.phrases.reasoning import MARK

Span = tuple[int, int]
INCOMPLETE = "\ufffd"  # what a tokenizer decodes part of a character to
MAX_RUN = 256  # a longer run of tokens without a complete last character is no text; the bound keeps the time linear


def decode_with_spans(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the tokens, and the half-open character range that each one adds.

    Each token is decoded behind the few before it: byte-level tokenizers split characters, SentencePiece drops the
    first space. Tokens that share a character share its range; special tokens add nothing, but the
    marks of a reasoning do. The ranges follow each other
    without a gap and spell the text, which is stripped; nothing else is cleaned up.
    """
    special = _special_ids(tokenizer)
    writing = [i for i, token_id in enumerate(token_ids) if token_id not in special]
    text, written = _decoded(tokenizer, [token_ids[i] for i in writing])
    spans, end = [], 0
    remaining = iter(written)
    for token_id in token_ids:
        start, end = (end, end) if token_id in special else next(remaining)
        spans.append((start, end))
    return _stripped(text, spans)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Those with a name (end of sequence, …) and those that are only marked as special, like a chat's turn ends; but
    not the marks of a reasoning: without them it would be taken for the answer."""
    added = tokenizer.added_tokens_decoder.items()
    marks = {token_id for token_id, token in added if MARK.fullmatch(token.content)}
    return {*tokenizer.all_special_ids, *(token_id for token_id, token in added if token.special)} - marks


def _decoded(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text and spans of tokens none of which is special."""

    def decode(ids: list[int]) -> str:
        return tokenizer.decode(ids, clean_up_tokenization_spaces=False)

    pieces: list[str] = []
    length = 0  # of all pieces
    spans: list[Span] = []
    before: list[int] = []  # the tokens behind which the next ones are decoded, and what they decode to
    before_text = ""
    run: list[int] = []  # the tokens of the next piece, which ends with a complete character
    drafts: list[str] = []  # what each of them made of it
    for i, token_id in enumerate(token_ids):
        run.append(token_id)
        behind = decode(before + run)
        # Byte fallback: the bytes of `before` may be a character no longer when another byte follows.
        drafts.append(behind[len(before_text) :] if behind.startswith(before_text) else decode(run))
        piece = drafts[-1]
        if piece.endswith(INCOMPLETE) and i + 1 < len(token_ids) and len(run) < MAX_RUN:
            continue
        spans += [(length + start, length + end) for start, end in _run_spans(drafts)]
        pieces.append(piece)
        length += len(piece)
        # A tokenizer may drop any number of spaces at the start: only behind something visible none is dropped.
        before = run if piece.strip() else (before + run)[-MAX_RUN:]
        before_text = decode(before)
        run, drafts = [], []
    return "".join(pieces), spans


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
