"""Which characters does each token write? For any tokenizer, in linear time."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
INCOMPLETE = "\ufffd"  # what a tokenizer decodes part of a character to
MAX_PENDING = 64  # a longer run without a complete character is no text; the bound keeps the time linear


def decode_with_spans(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> tuple[str, list[Span]]:
    """The text of the tokens, and the half-open character range that each one adds.

    Each token is decoded behind the few before it: byte-level tokenizers split characters, SentencePiece drops the
    first space. Tokens that share a character share its range; special tokens add nothing. The text is stripped.
    """
    special = set(tokenizer.all_special_ids)
    text = ""  # all that is committed: its last character is complete
    spans: list[Span] = []
    context: list[int] = []  # the tokens of the last committed piece, before which the next is decoded
    pending: list[int] = []  # tokens since then
    written = 0  # complete characters so far
    for i, token_id in enumerate(token_ids):
        if token_id in special:
            spans.append((written, written))
            continue
        pending.append(token_id)
        piece = tokenizer.decode(context + pending)[len(tokenizer.decode(context)) :]
        last = i + 1 == len(token_ids) or len(pending) == MAX_PENDING
        complete = piece if last else piece.rstrip(INCOMPLETE)
        # A character that is begun but not complete stands at index `written` for every token that has a part of it.
        start, written = written, len(text) + len(complete)
        spans.append((start, written + (len(complete) < len(piece))))
        if len(complete) == len(piece):
            text, context, pending = text + piece, pending, []
    text += tokenizer.decode(context + pending)[len(tokenizer.decode(context)) :] if pending else ""
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
