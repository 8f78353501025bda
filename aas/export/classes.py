"""Which of one's own classes a phrase names: by its words, or by the nearest word vector."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import load_pipeline, noun_chunks
from aas.store.atomic import write_text
from aas.text import harmless, read_lines

Words = tuple[str, ...]


class OwnClasses:
    """The classes of a file, a line each: `name`, or `name: synonym, synonym`; `#` begins a remark.

    A phrase names the class whose name or synonym ends with its noun ("a small traffic light": traffic light before
    light), singular or plural alike; else the one whose word vector is nearest to the noun's, with a cosine of at least
    `thresh`. Raises ValueError or OSError for a file that lists none, or gives one wording to two classes.
    """

    def __init__(self, path: Path, pipeline: str = "embedded", thresh: float = 0.8):
        self.pipeline, self.thresh = load_pipeline(pipeline), thresh
        wordings = read_classes(path)
        self.names = list(wordings)
        self.wordings = [(wording, name) for name, all_of in wordings.items() for wording in all_of]
        self.by_words: dict[Words, str] = {}
        for wording, name in self.wordings:
            if (other := self.by_words.setdefault(self._lemmas(wording)[0], name)) != name:
                raise ValueError(
                    f"--classes {path}: {wording!r} is of the class {other!r} and of {name!r}, where singular and "
                    "plural are alike: give it to one of them."
                )
        self.matcher = CategoryMatcher(self.pipeline, [one for one, _ in self.wordings]) if thresh <= 1 else None
        self.unmapped: Counter[str] = Counter()
        self._found = cache(self._find)

    def of(self, phrase: str) -> str | None:
        """The class; None, which is noted, where the phrase names none."""
        name, _, _ = self._found(phrase)
        if name is None:
            self.unmapped[phrase] += 1
        return name

    def report(self, path: Path) -> list[str]:
        """Write the phrases that named no class, the most frequent first; returns what to say of them."""
        rows = io.StringIO()
        writer = csv.writer(rows, delimiter="\t", lineterminator="\n")
        writer.writerow(["count", "phrase", "nearest class", "cosine"])
        for phrase, n in self.unmapped.most_common():
            _, nearest, cosine = self._found(phrase)
            writer.writerow([n, " ".join(harmless(phrase).split()), nearest, f"{cosine:.2f}"])
        write_text(path, rows.getvalue())
        n, wordings = self.unmapped.total(), len(self.unmapped)
        return [f"{n} phrases of {wordings} wordings name no class and were left out: {path}"] if n else []

    def _find(self, phrase: str) -> tuple[str | None, str, float]:
        """(class or None, the nearest by vectors, its cosine)."""
        lemmas, noun = self._lemmas(phrase)
        end = lemmas.index(noun) + 1 if noun else 0
        for start in range(end):  # the longest first
            if (name := self.by_words.get(lemmas[start:end])) is not None:
                return name, name, 1.0
        best = self.matcher.best(noun, range(len(self.wordings))) if self.matcher and noun else None
        if best is None:
            return None, "", 0.0
        nearest = self.wordings[best[0]][1]
        return (nearest if best[1] >= self.thresh else None), nearest, best[1]

    def _lemmas(self, text: str) -> tuple[Words, str]:
        """The words of a text, small and in the singular, and the noun among them that it is about: the root of its
        first noun chunk, else its last word."""
        doc = self.pipeline(" ".join(harmless(text).lower().split()))
        words = [token for token in doc if any(character.isalnum() for character in token.text)]
        if not words:
            return (), ""
        roots = [chunk.root for chunk in noun_chunks(doc) if chunk.root in words]
        return tuple(map(_singular, words)), _singular(roots[0] if roots else words[-1])


def _singular(token: Any) -> str:
    return (token.lemma_ or token.text).lower()


def read_classes(path: Path) -> dict[str, Sequence[str]]:
    """Name -> itself and its synonyms, in the order of the file."""
    found: dict[str, Sequence[str]] = {}
    for line in read_lines(path):
        name, _, synonyms = harmless(line.partition("#")[0]).partition(":")
        if name := " ".join(name.split()):
            if name in found:
                raise ValueError(f"--classes {path}: the class {name!r} has two lines: make one of them.")
            found[name] = [name, *filter(None, (" ".join(one.split()) for one in synonyms.split(",")))]
    if not found:
        raise ValueError(f"--classes {path}: it lists no class; write one a line, `dog` or `dog: puppy, hound`.")
    return found
