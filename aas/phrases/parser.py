"""Noun phrases of a text, by any spaCy pipeline with a parser."""

from collections.abc import Callable, Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span, Token
from spacy.util import is_package

from aas.choices import Kind, Words
from aas.loading import loading
from aas.model_files import check_pointers
from aas.paths import embedded_dir
from aas.phrases import universal
from aas.phrases.alignment import overlapping
from aas.phrases.markup import readings
from aas.phrases.reading import Reading
from aas.phrases.visible import TESTS
from aas.records import Answer, Phrase

FROM_FILE = "aas.FromFile.v1"


@spacy.registry.tokenizers(FROM_FILE)
def _from_file() -> Callable[[Language], Tokenizer]:
    """An empty tokenizer, for the rules that the pipeline's folder has: spaCy's own would be filled with those of its
    language first, which takes as long as reading all others."""
    return lambda nlp: Tokenizer(nlp.vocab)


def load_pipeline(name: str | Path | Language) -> Language:
    """`embedded`, the name of an installed spaCy package, a folder, or a pipeline that is loaded already.

    Raises FileNotFoundError when there is none, ValueError when it is damaged or has no parser or no tagger.
    """
    if isinstance(name, Language):
        return _checked(name, f"{name.lang}_{name.meta['name']}")
    if name == "embedded":
        return _embedded(embedded_dir("phrases"))
    with loading("spaCy pipeline", name):
        if Path(name).is_dir():
            check_pointers(Path(name))
        elif not is_package(str(name)):
            raise FileNotFoundError(
                f"No spaCy pipeline {str(name)!r}: give `embedded`, a folder, or install it "
                f"(python -m spacy download {name})."
            )
        elif not _is_pipeline(str(name)):
            raise ValueError(f"{str(name)!r} is a package, but no spaCy pipeline: give one, as en_core_web_lg.")
        return _checked(spacy.load(Path(name) if Path(name).is_dir() else name), str(name))


@cache
def _embedded(folder: Path) -> Language:
    """The one that ships, once in a process: it takes longer to load than the other models, and nothing changes it."""
    return spacy.load(folder, config={"nlp": {"tokenizer": {"@tokenizers": FROM_FILE}}})


def _is_pipeline(package: str) -> bool:
    """Of a package that is installed: whether it is a pipeline's, which says what it is beside its code."""
    spec = find_spec(package.replace("-", "_"))
    return any((Path(place) / "meta.json").is_file() for place in (spec and spec.submodule_search_locations) or ())


def _checked(pipeline: Language, name: str) -> Language:
    """`pipeline` if it finds noun phrases, or ValueError."""
    doc = pipeline("A dog.")
    missing = [what for what, attribute in (("parser", "DEP"), ("tagger", "POS")) if not doc.has_annotation(attribute)]
    if missing:
        raise ValueError(
            f"The spaCy pipeline {name!r} finds no noun phrases: it has no {' and no '.join(missing)} "
            f"(its parts: {', '.join(pipeline.pipe_names) or 'none'}). Give one that has."
        )
    return pipeline


def noun_chunks(doc: Doc) -> list[Span]:
    """spaCy's own noun chunks; where spaCy has none for the language, those of Universal Dependencies.

    None without a letter or a digit.
    """
    chunks = universal.noun_chunks(doc) if doc.noun_chunks_iterator is None else doc.noun_chunks
    return [chunk for chunk in chunks if has_word(chunk.text)]


def has_word(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(character.isalnum() for character in text)


def noun_phrases(
    pipeline: Language,
    answer: Answer,
    *,
    words: Words = "root",
    drop: Collection[Kind] = (),
    reasoning: bool = False,
) -> tuple[Phrase, ...]:
    """The noun chunks of the answer in reading order, with the answer tokens that overlap each root word, or, with
    `words="chunk"`, the whole chunk. A phrase's text is what one reads: without the markup between its words.

    `drop`: leave out `pronouns`, and the `unseen` (`the image`, `the background`; English). `reasoning`: those of what
    stands between <think> and </think> too.
    """
    return chosen_phrases(pipeline, answer, words=words, drop=drop, reasoning=reasoning)[0]


def chosen_phrases(
    pipeline: Language,
    answer: Answer,
    *,
    words: Words = "root",
    drop: Collection[Kind] = (),
    reasoning: bool = False,
) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
    """As `noun_phrases`, and the words of the chunks that were left out."""
    phrases, left_out = [], []
    for reading in readings(answer, reasoning=reasoning):
        for chunk in noun_chunks(pipeline(reading.text)):
            if any(TESTS[kind](chunk) for kind in drop):
                left_out.append(chunk.text.strip())
            else:
                phrases.append(phrase_of(chunk, reading, answer, words))
    return tuple(phrases), tuple(left_out)


def phrase_of(chunk: Span, reading: Reading, answer: Answer, words: Words) -> Phrase:
    """A noun chunk of what was read, with the answer's tokens that write its root word, or all of it."""
    start, end = reading.trimmed(chunk.start_char, chunk.end_char)
    text, root = reading.text[start:end], _root(chunk)
    root_start, root_end = reading.trimmed(root.idx, root.idx + len(root))
    # Marks between the words of a chunk are not its words: their tokens have no part in its map.
    runs = reading.runs(*((root_start, root_end) if words == "root" else (start, end)))
    tokens = sorted({token for run in runs for token in overlapping(answer.token_spans, run)})
    if not tokens:
        raise ValueError(f"No token writes {text!r}: the answer's token spans do not belong to its text.")
    return Phrase(text, reading.span(start, end), reading.span(root_start, root_end), tuple(tokens))


def _root(chunk: Span) -> Token:
    """The chunk's root; where a parser took a mark for one, its last word."""
    return chunk.root if has_word(chunk.root.text) else [word for word in chunk if has_word(word.text)][-1]
