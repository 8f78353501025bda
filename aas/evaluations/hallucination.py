"""`aas eval hallucination`: does a phrase's confidence tell what is in the photograph from what is not?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import typer

from aas.datasets.coco import Findings, note, read_lists
from aas.datasets.instances import read_truth
from aas.evaluations import report
from aas.metrics import bootstrap
from aas.metrics.auc import auc_evidence
from aas.metrics.mean import mean_evidence
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import load_pipeline, noun_chunks
from aas.spellings import id_text
from aas.store.addresses import OF_RUN
from aas.store.results import Result, read_result
from aas.store.runs import RunFolder
from aas.store.spools import ahead

COLUMNS = {  # of a result -> what it is called in the table
    "confidences": "confidence",
    "token_probabilities": "the LMM's own token probability",
    "scores": "the segmenter's score",
}
FIRST = "confidences"


@dataclass(frozen=True, kw_only=True)
class EvalHallucination(report.ReportOptions):
    """Of phrases that name what a photograph has and what it has not: how well confidence tells them apart (AUC)."""

    examples: ClassVar = (
        "aas eval hallucination --results grounded --gt instances_val2017.json --captions captions_val2017.json",
        "aas eval hallucination --results masks --gt instances_val2017.json --json run.json",
    )

    results: Annotated[Path, typer.Option(help="Run folder or URL of `aas ground` or `aas segment gcg`.", **OF_RUN)]
    gt: Annotated[Path, typer.Option(help="COCO instances: what is in each photograph.")]
    captions: Annotated[
        Path | None,
        typer.Option(help="COCO captions: what they name is there too, annotated or not (as CHAIR counts)."),
    ] = None
    phrases: Annotated[str, typer.Option(help="spaCy pipeline with word vectors.")] = "embedded"
    category_thresh: Annotated[
        float, typer.Option(help="Least cosine between a phrase's root word and the category that it names.")
    ] = 0.7

    def run(self) -> int:
        """Print the table, write what was asked for; returns the exit code."""
        content, findings = evaluate(self)
        return report.deliver(content, findings, as_table(content), self)


@dataclass(frozen=True)
class Case:
    """A phrase that names a category. `image`: its number, from 0; `values`: by column of the result."""

    image: int
    phrase: str
    category: str
    is_there: bool
    values: Mapping[str, float]


class Presence:
    """Which category a phrase names, and whether the photograph has it: in its annotation or in what people say of it.

    Raises ValueError or OSError for files that say neither.
    """

    def __init__(self, gt: Path, captions: Path | None, phrases: str, thresh: float, findings: Findings):
        truth = read_truth(gt, findings)
        self.pipeline, self.thresh = load_pipeline(phrases), thresh
        self.matcher = CategoryMatcher(self.pipeline, sorted(set(truth.categories.values())))
        self.keys = {Path(name).stem: key for key, name in truth.names.items()} | {key: key for key in truth.images}
        self.there: dict[str, set[str]] = {key: set() for key in truth.images}
        for mask in truth.masks:
            if mask.category in truth.categories:
                self.there[mask.image].add(truth.categories[mask.category])
        for entry in read_lists(captions, "annotations")["annotations"] if captions else ():
            key, text = id_text(entry.get("image_id")), entry.get("caption")
            if key in self.there and isinstance(text, str):
                self.there[key] |= self._named_in(" ".join(text.split()))

    def _named_in(self, text: str) -> set[str]:
        named = (self.category(chunk.root.text) for chunk in noun_chunks(self.pipeline(text)))
        return {name for name in named if name is not None}

    def category(self, word: str) -> str | None:
        """The one that is nearest to a word, if it is near enough."""
        best = self.matcher.best(word, range(len(self.matcher.names)))
        return self.matcher.names[best[0]] if best is not None and best[1] >= self.thresh else None

    def named_by(self, caption: str, spans: Sequence[tuple[int, int]]) -> list[str | None]:
        """By the root word of each span of an answer."""
        doc = self.pipeline(caption)
        found = (doc.char_span(*span, alignment_mode="expand") for span in spans)
        return [None if one is None else self.category(one.root.text) for one in found]

    def has(self, image: str | int, category: str) -> bool | None:
        """None for a photograph that is not known. `image`: its id in the annotation, or its file's name or path."""
        key = self.keys.get(str(id_text(image))) or self.keys.get(Path(str(image)).stem)
        return None if key is None else category in self.there[key]


def evaluate(arguments: EvalHallucination) -> tuple[dict[str, Any], Findings]:
    """(what the JSON file holds, what was wrong)."""
    findings: Findings = {}
    presence = Presence(arguments.gt, arguments.captions, arguments.phrases, arguments.category_thresh, findings)
    results = _results(arguments.results, findings)
    images = sorted(results)
    cases = [case for i, key in enumerate(images) for case in cases_of(presence, results[key], i, findings)]
    if len({case.is_there for case in cases}) < 2:
        raise ValueError(f"{len(cases)} phrases name a category, and not both what is there and what is not: no AUC.")
    kinds = sorted({one.confidence_kind for one in results.values() if one.confidence_kind})
    content = compared(cases, images, kinds, arguments.n_resamples, arguments.seed)
    content["counts"] |= {what: len(where) for what, where in findings.items()}
    return content | {"reported": findings}, findings


def _results(folder: Path, findings: Findings) -> dict[str, Result]:
    """Key -> result; one that cannot be read, or has no confidence, is noted."""
    found = {}
    items = RunFolder(folder, ".json").items()
    for key, path in ahead(items.items(), itemgetter(1)):
        try:
            found[key] = read_result(path, needs=("spans", "confidences"))
        except ValueError as error:
            note(findings, "unreadable_files", str(error))
    if not found:
        raise ValueError(f"--results {folder}: no result with confidences is in this folder.")
    return found


def cases_of(presence: Presence, result: Result, image: int, findings: Findings) -> list[Case]:
    """Of the phrases that name a category, in a photograph that is known."""
    found = []
    columns = {name: getattr(result, name) for name in COLUMNS if getattr(result, name) is not None}
    for i, category in enumerate(presence.named_by(result.caption, result.spans or ())):
        if category is None:
            continue
        is_there = presence.has(result.image or result.image_id, category)
        if is_there is None:
            note(findings, "answers_about_unknown_images", result.image_id)
            break
        values = {name: float(column[i]) for name, column in columns.items()}
        found.append(Case(image, result.phrases[i], category, is_there, values))
    return found


def compared(cases: Sequence[Case], images: Sequence[str], kinds: Sequence[str], n: int, seed: int) -> dict[str, Any]:
    """Figures, their intervals by `n` resamples of the images, and by how much confidence's differ; what they are made
    of. `kinds`: what the confidences are."""
    evidence = evidence_of(cases, len(images))
    common, sizes = [(i, i) for i in range(len(images))], (len(images), len(images))
    content: dict[str, Any] = {"figures": {name: report.numbers(of, len(images)) for name, of in evidence.items()}}
    if n:
        content["intervals"] = {name: bootstrap.intervals(of, len(images), n, seed) for name, of in evidence.items()}
        content["differences"] = {
            name: bootstrap.differences(of, evidence[FIRST], common, sizes, n, seed)
            for name, of in evidence.items()
            if name != FIRST
        }
    return content | {
        "counts": {"images": len(images), "phrases": len(cases), "there": sum(case.is_there for case in cases)},
        "settings": {"task": "hallucination", "kinds": list(kinds), "resamples": n, "seed": seed},
        "cases": [vars(case) for case in cases],
        "images": list(images),
        "evidence": evidence,
    }


def evidence_of(cases: Sequence[Case], n_images: int) -> dict[str, bootstrap.Evidence]:
    """Of each column that all phrases have: AUC, mean, and Brier score, the mean square of value less 1 or 0."""
    images, there = [case.image for case in cases], np.array([case.is_there for case in cases])
    found: dict[str, bootstrap.Evidence] = {}
    for name in COLUMNS:
        if all(name in case.values for case in cases):
            values = np.array([case.values[name] for case in cases])
            found[name] = {
                "AUC": auc_evidence(values.tolist(), there.tolist(), images, n_images),
                "mean": mean_evidence(values, images, n_images=n_images),
                "Brier": mean_evidence((values - there) ** 2, images, n_images=n_images),
            }
    return found


def as_table(content: Mapping[str, Any]) -> str:
    """A row for each number that a result has of its phrases."""
    rows = []
    for name, figures in content["figures"].items():
        around = content.get("intervals", {}).get(name, {})
        cells = [report.cell(figures[figure], around.get(figure)) for figure in ("AUC", "mean", "Brier")]
        gain = content.get("differences", {}).get(name, {}).get("AUC")
        rows.append([COLUMNS[name], cells[0], "" if gain is None else report.change(gain), *cells[1:]])
    counts = content["counts"]
    share = counts["there"] / counts["phrases"]
    said = f"{counts['phrases']} phrases of {counts['images']} answers name a category; of them {share:.3f} are there"
    table = report.markdown(["", "AUC", "confidence's AUC less that", "mean", "Brier score"], rows)
    return f"{table}\n\n{said}. Confidence is {' and '.join(content['settings']['kinds'])}."
