"""The thought of a chain: which words of it are the model's own, and which of these name the thing that matters."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from spacy.language import Language
from transformers import PreTrainedTokenizerBase

from aas.choices import ThoughtWords, Words
from aas.phrases.alignment import decode_with_spans, overlapping
from aas.phrases.referent import referent
from aas.records import Answer, Phrase

SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")


def first_sentence(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> list[int]:
    """The tokens up to the one that ends the first sentence."""
    text, spans = decode_with_spans(tokenizer, token_ids)
    end = SENTENCE_END.search(text)
    if end is None:
        return list(token_ids)
    return [token for token, (start, _) in zip(token_ids, spans, strict=True) if start < end.end()]


@dataclass(frozen=True)
class Named:
    """Of an answer whose first `n_given` tokens were written for the model, the phrase that is grounded: by
    `thought_words` the one that names the thing, or all of the model's own words."""

    pipeline: Language
    n_given: int
    thought_words: ThoughtWords
    words: Words

    def __call__(self, answer: Answer) -> list[Phrase]:
        """One, or none where the model wrote no word."""
        own = _from_token(answer, self.n_given)
        if not own.text.strip():
            return []
        found = referent(self.pipeline, own, self.words) if self.thought_words == "object" else _all_words(own)
        return [] if found is None else [_moved(found, len(answer.text) - len(own.text), self.n_given)]


def _from_token(answer: Answer, first: int) -> Answer:
    """What the tokens from `first` on write."""
    spans = answer.token_spans[first:]
    start = spans[0][0] if spans else len(answer.text)
    moved = tuple((max(0, a - start), max(0, b - start)) for a, b in spans)
    return Answer(answer.question, answer.text[start:], answer.token_ids[first:], moved)


def _all_words(answer: Answer) -> Phrase | None:
    words = re.search(r"\w.*\w|\w", answer.text, re.DOTALL)
    if words is None:
        return None
    return Phrase(words.group(), words.span(), words.span(), overlapping(answer.token_spans, words.span()))


def _moved(phrase: Phrase, by_characters: int, by_tokens: int) -> Phrase:
    (start, end), (first, last) = phrase.span, phrase.root_span
    return Phrase(
        phrase.text,
        (start + by_characters, end + by_characters),
        (first + by_characters, last + by_characters),
        tuple(token + by_tokens for token in phrase.token_indices),
    )
