"""Which noun phrase of an answer names the thing that was asked about."""

from spacy.language import Language
from spacy.tokens import Span

from aas.choices import Words
from aas.phrases.alignment import overlapping
from aas.phrases.markup import readings
from aas.phrases.parser import noun_chunks, phrase_of
from aas.phrases.reading import Reading
from aas.phrases.visible import is_pronoun
from aas.records import Answer, Phrase

# What a sentence says its subject is names the thing better than the subject: "It is the mug", "The tool he needs is
# the spade". Next an answer of a noun alone, then a subject: "The mug is on the table".
ROLES = ("attr", "ROOT", "nsubj", "nsubjpass", "nsubj:pass")


def referent(pipeline: Language, answer: Answer, words: Words = "root") -> Phrase | None:
    """What the answer's first sentence with a noun phrase is about; None for an answer that no token writes.

    The first of the phrases with the first of `ROLES` that any has; else the first that is no pronoun; where the answer
    has no noun phrase at all, its whole text. `words`: the tokens of the root word, or of the `chunk`.
    """
    parts = readings(answer)
    for reading in parts:
        if chunks := noun_chunks(pipeline(reading.text)):
            named = _named([chunk for chunk in chunks if chunk.sent == chunks[0].sent])
            return phrase_of(named, reading, answer, words)
    return _whole(parts[0], answer) if parts else None


def _whole(reading: Reading, answer: Answer) -> Phrase | None:
    span = reading.span(0, len(reading.text))
    tokens = overlapping(answer.token_spans, span)
    return Phrase(reading.text, span, span, tokens) if tokens else None


def _named(chunks: list[Span]) -> Span:
    seen = [chunk for chunk in chunks if not is_pronoun(chunk)] or chunks
    by_role = [
        chunk
        for role in ROLES
        for chunk in seen
        if chunk.root.dep_ == role and (role == "ROOT" or chunk.root.head.dep_ == "ROOT")
    ]
    return (by_role or seen)[0]
