"""Captions against references: BLEU, METEOR, ROUGE-L, CIDEr and SPICE, by pycocoevalcap.

Its tokenizer and METEOR are Java programs: one process makes words of all captions, one more scores METEOR. Without
Java the words come from `ptb.py` and METEOR is left out.
"""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aas.metrics import ptb

METEOR_COLUMNS = 23


@dataclass(frozen=True)
class Caption:
    """What an answer says, and at least one reference."""

    predicted: str
    references: Sequence[str]


def java_works() -> bool:
    """Whether `java` is on the PATH and starts."""
    if shutil.which("java") is None:
        return False
    return subprocess.run(["java", "-version"], capture_output=True).returncode == 0


class CaptionScorer:
    """Starts METEOR at once, since it takes seconds to load, and scores later.

    Raises ValueError where SPICE is asked for and does not run here.
    """

    def __init__(self, spice: bool = False):
        self.has_java = java_works()
        self._spice = _checked_spice(self.has_java) if spice else None
        self._meteor = _started_meteor() if self.has_java else None

    def evidence(self, captions: Sequence[Caption | None]) -> dict[str, dict[str, Any]]:
        """What the figures are made of, per image (for `bootstrap.figures`); None is an image that does not count."""
        there = [i for i, caption in enumerate(captions) if caption is not None]
        said, references = self._tokenized([caption for caption in captions if caption is not None])
        found: dict[str, dict[str, Any]] = {}
        if self._meteor is not None:
            found["METEOR"] = {"kind": "meteor", "rows": _meteor_rows(self._meteor, said, references)}
        found["CIDEr"] = {"kind": "mean", "values": _cider(said, references)}
        found["Bleu"] = {"kind": "bleu", "rows": _bleu_rows(said, references)}
        found["ROUGE_L"] = {"kind": "mean", "values": _rouge(said, references)}
        if self._spice is not None:
            found["SPICE"] = {"kind": "mean", "values": _spice_values(self._spice, said, references)}
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


def _bleu_rows(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[float]]:
    """Per image: words, words of the closest reference, 1- to 4-grams, those that a reference has."""
    from pycocoevalcap.bleu.bleu_scorer import BleuScorer

    scorer = BleuScorer(n=4)
    for caption, of_image in zip(said, references, strict=True):
        scorer += (caption, list(of_image))
    return [
        [row["testlen"], min((abs(n - row["testlen"]), n) for n in row["reflen"])[1], *row["guess"], *row["correct"]]
        for row in scorer.ctest
    ]


def _by_number(said: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[Mapping, Mapping]:
    """(references, captions) as pycocoevalcap takes them."""
    return {i: list(of_image) for i, of_image in enumerate(references)}, {i: [words] for i, words in enumerate(said)}


def _rouge(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    from pycocoevalcap.rouge.rouge import Rouge

    return Rouge().compute_score(*_by_number(said, references))[1].tolist() if said else []


def _cider(said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Document frequencies are those of all references here, for every resample too."""
    from pycocoevalcap.cider.cider import Cider

    if not any(words for of_image in references for words in of_image):
        return [0.0] * len(said)  # the library cannot count the words of none
    return Cider().compute_score(*_by_number(said, references))[1].tolist()


def _started_meteor() -> Any:
    from pycocoevalcap.meteor.meteor import Meteor

    return Meteor()


def _meteor_rows(meteor: Any, said: Sequence[str], references: Sequence[Sequence[str]]) -> list[list[float]]:
    """METEOR's own statistics of each caption (`bootstrap.meteor` names the columns)."""
    rows = []
    for words, of_image in zip(said, references, strict=True):
        row = meteor._stat(words, list(of_image)).split()
        if len(row) != METEOR_COLUMNS:
            raise RuntimeError("METEOR's Java process ended: it needs 2 GB of memory.")
        rows.append([float(value) for value in row])
    return rows


def _checked_spice(has_java: bool) -> Any:
    """SPICE, tried on one caption before anything else is computed."""
    from pycocoevalcap.spice.get_stanford_models import get_stanford_models
    from pycocoevalcap.spice.spice import Spice

    needs = "SPICE needs Java 8, 8 GB of memory, and Stanford CoreNLP 3.6.0, which is downloaded once (about 400 MB)"
    if not has_java:
        raise ValueError(f"{needs}: there is no Java here. Leave --spice out.")
    print(f"{needs}; trying it on one caption.", file=sys.stderr)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            get_stanford_models()
        spice = Spice()
        _spice_values(spice, ["a dog"], [["a dog"]])
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{needs}, and it does not run here ({error}). Leave --spice out.") from error
    return spice


def _spice_values(spice: Any, said: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    scores = spice.compute_score(*_by_number(said, references))[1] if said else []
    return [float(np.nan_to_num(score["All"]["f"])) for score in scores]
