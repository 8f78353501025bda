"""Captions against references, by the measures of `registry.CAPTION_METRICS`.

The tokenizer of COCO's caption evaluation is a Java program: one process makes words of all captions. Without Java the
words come from `ptb.py`, and measures that need Java are left out.
"""

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from aas import registry
from aas.metrics import ptb


@dataclass(frozen=True)
class Caption:
    """What an answer says, and at least one reference."""

    predicted: str
    references: Sequence[str]


class CaptionMetric(Protocol):
    """What `registry.CAPTION_METRICS` names: a class whose objects, made before anything is computed, measure captions.

    A ValueError while it is made says why it does not run here.
    """

    needs_java: ClassVar[bool]

    def __call__(self, said: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Evidence of each image's caption, given as lines of words: {"kind": "mean", "values": [images]}, or `rows`
        and another kind of `registry.EVIDENCE_KINDS`."""
        ...


def java_works() -> bool:
    """Whether `java` is on the PATH and starts."""
    if shutil.which("java") is None:
        return False
    return subprocess.run(["java", "-version"], capture_output=True).returncode == 0


class CaptionScorer:
    """Makes the named measures at once, since some take seconds to load, and scores later.

    Raises ValueError where one of them does not run here; those that need Java are left out where there is none.
    """

    def __init__(self, names: Iterable[str]):
        self.has_java = java_works()
        classes = {name: registry.load(registry.CAPTION_METRICS, name, "measure of captions") for name in names}
        self.metrics: dict[str, CaptionMetric] = {
            name: metric() for name, metric in classes.items() if self.has_java or not metric.needs_java
        }

    def evidence(self, captions: Sequence[Caption | None]) -> dict[str, dict[str, Any]]:
        """What the figures are made of, per image (for `bootstrap.figures`); None is an image that does not count."""
        there = [i for i, caption in enumerate(captions) if caption is not None]
        said, references = self._tokenized([caption for caption in captions if caption is not None])
        found = {name: metric(said, references) for name, metric in self.metrics.items()}
        return {name: _spread(columns, there, len(captions)) for name, columns in found.items()}

    def _tokenized(self, captions: Sequence[Caption]) -> tuple[list[str], list[list[str]]]:
        lines = [caption.predicted for caption in captions]
        lines += [reference for caption in captions for reference in caption.references]
        lines = [" ".join(line.split()) for line in lines]
        words = iter(_java_words(lines) if self.has_java else map(ptb.words, lines))
        said = [next(words) for _ in captions]
        return said, [[next(words) for _ in caption.references] for caption in captions]


def _spread(columns: dict[str, Any], there: list[int], n_images: int) -> dict[str, Any]:
    """Rows of the images that count, among all images; zeros, with weight 0, for the others."""
    key = "rows" if "rows" in columns else "values"
    rows = np.asarray(columns[key], float)
    spread = np.zeros((n_images, *rows.shape[1:]))
    spread[there] = rows
    weights = np.zeros(n_images)
    weights[there] = 1
    return {"kind": columns["kind"], key: spread.tolist()} | ({"n": weights.tolist()} if key == "values" else {})


def _java_words(lines: Sequence[str]) -> list[str]:
    """Lines of words, by one run of Stanford's tokenizer over all lines, without punctuation."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).parent / ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR
    command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    # A last line without an end would be taken for no line.
    text = "".join(f"{line}\n" for line in lines)
    done = subprocess.run(command, input=text.encode(), capture_output=True)
    found = done.stdout.decode().split("\n")[:-1]
    if done.returncode or len(found) != len(lines):
        raise RuntimeError(f"Java's tokenizer failed: {done.stderr.decode(errors='replace')[-300:]}")
    removed = set(ptbtokenizer.PUNCTUATIONS)
    return [" ".join(word for word in line.rstrip().split(" ") if word not in removed) for line in found]


def by_number(said: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Mapping, Mapping]:
    """(references, captions) as pycocoevalcap takes them."""
    return {i: list(of_image) for i, of_image in enumerate(references)}, {i: [words] for i, words in enumerate(said)}
