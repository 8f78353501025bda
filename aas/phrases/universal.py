"""Noun chunks by Universal Dependencies, for languages that spaCy has no rule for."""

from spacy.tokens import Doc, Span, Token
from spacy.util import filter_spans

NOMINAL = {"NOUN", "PROPN", "PRON"}
# Relations (their part before the colon; with those of spaCy's Chinese pipelines) of words that belong to the noun that
# they depend on: a noun that stands in one of them heads no phrase of its own, and they stretch the phrase.
WITHIN = {"amod", "clf", "compound", "det", "fixed", "flat", "goeswith", "name", "nummod"}
# A noun in one of these is no thing: "in front of", "on top of", "two pieces".
FUNCTION = {"advmod", "aux", "case", "cc", "cop", "discourse", "expl", "mark", "punct"}


def noun_chunks(doc: Doc) -> list[Span]:
    """The flat noun phrases of a parsed text in reading order: each noun with the determiners, numerals, adjectives
    and parts of names around it, no clauses, no prepositions, none inside another."""
    nouns = [word for word in doc if word.pos_ in NOMINAL and _relation(word) not in WITHIN | FUNCTION]
    return filter_spans([_chunk(noun) for noun in nouns])


def _relation(word: Token) -> str:
    return word.dep_.split(":")[0].lower()


def _chunk(noun: Token) -> Span:
    """From the furthest word on the left to the furthest on the right that one can reach over words within."""
    start = end = noun.i
    for child in reversed(list(noun.lefts)):
        if _relation(child) not in WITHIN or child.right_edge.i != start - 1:
            break
        start = child.left_edge.i
    for child in noun.rights:
        if _relation(child) not in WITHIN or child.left_edge.i != end + 1:
            break
        end = child.right_edge.i
    return noun.doc[start : end + 1]
