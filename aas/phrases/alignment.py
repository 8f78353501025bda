"""Which characters does each token write? For any tokenizer, in linear time."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
INCOMPLETE = "\ufffd"  # what a tokenizer decodes part of a character to
MAX_BYTES = 4  # of a character in UTF-8; more incomplete tokens than that never become one


def decode_with_spans(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the tokens, and the half-open character range that each one adds.

    Each token is decoded behind the few before it: byte-level tokenizers split characters, SentencePiece drops the
    first space. Tokens that share a character share its range; special tokens add nothing. The text is stripped.
    """
    special = set(tokenizer.all_special_ids)
    text = ""
    spans: list[Span] = [(0, 0)] * len(token_ids)
    shown: list[int] = []  # ids of the last complete piece of text: the context of what follows
    pending: list[int] = []  # places of tokens whose characters are not complete yet
    for i, token_id in enumerate(token_ids):
        if token_id in special:
            spans[i] = (len(text), len(text))
            continue
        pending.append(i)
        ids = [token_ids[j] for j in pending]
        piece = tokenizer.decode(shown + ids)[len(tokenizer.decode(shown)) :]
        if piece.endswith(INCOMPLETE) and len(pending) < MAX_BYTES and i + 1 < len(token_ids):
            continue
        start, text = len(text), text + piece
        for j in pending:
            spans[j] = (start, len(text))
        shown, pending = ids, []
    return _stripped(text, spans)


def _stripped(text: str, spans: list[Span]) -> tuple[str, list[Span]]:
    lead = len(text) - len(text.lstrip())
    text = text.strip()

    def clamp(i: int) -> int:
        return min(max(i - lead, 0), len(text))

    return text, [(clamp(start), clamp(end)) for start, end in spans]


def overlapping(spans: Sequence[Span], span: Span) -> tuple[int, ...]:
    """Indices of the ranges that share at least one character with `span`."""
    return tuple(i for i, (start, end) in enumerate(spans) if max(start, span[0]) < min(end, span[1]))
