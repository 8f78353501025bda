"""Masks of given expressions: which attention items, and which words of each answer."""

from collections.abc import Sequence
from pathlib import Path

from spacy.language import Language

from aas.choices import Words
from aas.datasets.answers import GivenAnswer
from aas.grounding import relative
from aas.photographs import Address, File
from aas.phrases.alignment import overlapping
from aas.phrases.referent import referent
from aas.phrases.spacing import carried_over
from aas.records import Answer, Phrase
from aas.stages.segment_jobs import SegmentJob
from aas.store.attention import SUFFIX
from aas.store.photographs import Folder, folder_of, in_folder
from aas.store.runs import RunFolder


def find_rows(
    attn: Path, images: Path | Address, rows: Sequence[GivenAnswer]
) -> tuple[list[SegmentJob], list[tuple[str, str]]]:
    """A job for each line of --answers, those of one image side by side; and (key, reason) of those that have no
    attention item."""
    if not attn.is_dir():
        raise FileNotFoundError(f"--attn {attn}: no such folder.")
    run, folder = RunFolder(attn, SUFFIX), folder_of(images)
    jobs = [SegmentJob(row.key, row.key, _item(run, row, folder), _photograph(row, folder), row) for row in rows]
    missing = [job for job in jobs if not job.item.is_file()]
    if len(missing) == len(jobs):
        raise ValueError(f"--attn {attn}: no attention item of any line of --answers is in this folder.")
    reasons = [(job.key, f"{job.key}: no attention item in {attn}; run `aas infer-attn` for it") for job in missing]
    there = [job for job in jobs if job.item.is_file()]
    return sorted(there, key=lambda job: (str(job.image), job.key)), reasons


def _item(run: RunFolder, row: GivenAnswer, folder: Folder) -> Path:
    """An image may be named by its path, as in `infer-attn`; its item is named by where it lies in the folder."""
    named = run.item_path(row.key)
    if row.id or named.is_file() or not isinstance(folder, Path):
        return named
    return run.item_path(relative(Path(row.image), folder))


def _photograph(row: GivenAnswer, folder: Folder) -> File:
    inside = in_folder(folder, row.image)
    is_named_by_path = isinstance(inside, Path) and not inside.is_file() and Path(row.image).is_file()
    return Path(row.image) if is_named_by_path else inside


def phrases_of(row: GivenAnswer, pipeline: Language, answer: Answer, words: Words) -> tuple[Phrase, ...]:
    """The line's spans with all tokens that write them; without spans, what the answer is about.

    Raises ValueError where the answer's tokens write other words than were given.
    """
    if row.spans is None:
        found = referent(pipeline, answer, words)
        return () if found is None else (found,)
    spans = carried_over(row.spans, row.text, answer.text)
    if spans is None:
        raise ValueError(f"{row.key}: the attention is of other words, {answer.text!r}: was --answers changed since?")
    return tuple(_phrase(answer, span) for span in spans)


def _phrase(answer: Answer, span: tuple[int, int]) -> Phrase:
    tokens = overlapping(answer.token_spans, span)
    if not tokens:
        raise ValueError(f"No token of the answer writes {answer.text[slice(*span)]!r}.")
    return Phrase(answer.text[slice(*span)], span, span, tokens)
