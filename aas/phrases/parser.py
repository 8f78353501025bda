"""Noun phrases of a text, by any spaCy pipeline with a parser."""

from pathlib import Path

import spacy
from spacy.language import Language

from aas.paths import embedded_dir
from aas.phrases.alignment import overlapping
from aas.records import Answer, Phrase


def load_pipeline(name: str) -> Language:
    """`embedded`, the name of an installed spaCy package, or a folder."""
    if name == "embedded":
        return spacy.load(embedded_dir("phrases"))
    try:
        return spacy.load(Path(name) if Path(name).is_dir() else name)
    except OSError as error:
        raise FileNotFoundError(
            f"No spaCy pipeline {name!r}: give `embedded`, a folder, or install it (python -m spacy download {name})."
        ) from error


def noun_phrases(pipeline: Language, answer: Answer) -> tuple[Phrase, ...]:
    """The noun chunks of the answer in reading order, with the answer tokens that overlap each root word."""
    phrases = []
    for chunk in pipeline(answer.text).noun_chunks:
        root_span = (chunk.root.idx, chunk.root.idx + len(chunk.root))
        tokens = overlapping(answer.token_spans, root_span)
        if tokens:
            phrases.append(Phrase(chunk.text, (chunk.start_char, chunk.end_char), root_span, tokens))
    return tuple(phrases)
