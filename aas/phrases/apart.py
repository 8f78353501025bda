"""The pipeline in a process of its own, which imports spaCy and loads it while this one imports the models' libraries:
on two cores the first mask is there sooner. `load_pipeline` and `chosen_phrases` as in `parser.py`, for both."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aas.forked import end_with
from aas.imports import collector_paused

if TYPE_CHECKING:
    from spacy.language import Language

    from aas.records import Answer, Phrase

T = TypeVar("T")
Chosen = tuple[tuple["Phrase", ...], tuple[str, ...]]


class Apart:
    """A pipeline that another process loads from now on; of it nothing but phrases can be had."""

    def __init__(self, name: str):
        self.name = name
        self.pool = ProcessPoolExecutor(1, get_context("fork"), end_with, (os.getpid(),))
        self.loading = self.pool.submit(_load, name)

    def loaded(self) -> "Apart":
        """When it is loaded. Raises what that raises."""
        _result(self.loading)
        return self

    def chosen_phrases(self, answer: "Answer", how: dict[str, Any]) -> Chosen:
        return _result(self.pool.submit(_chosen_phrases, answer, how))

    def end(self) -> None:
        """Its process ends, when it has done what it does; nobody waits for that."""
        self.pool.shutdown(wait=False, cancel_futures=True)


_begun: ContextVar[Apart | None] = ContextVar("_begun", default=None)
_pipeline: "Language"  # in the process of its own


@contextmanager
def pipeline_apart(name: str) -> Iterator[None]:
    """Within, `load_pipeline(name)` is one that another process loads meanwhile, for this process alone. Nothing is
    begun where that brings nothing (spaCy is here already) or processes are not forked (macOS, Windows)."""
    if sys.platform != "linux" or "spacy" in sys.modules:
        yield
        return
    with collector_paused():
        import torch  # noqa: F401  spaCy imports it too: now it need not be imported twice
    one = Apart(name)
    before = _begun.set(one)
    try:
        yield
    finally:
        _begun.reset(before)
        one.end()


def load_pipeline(name: "str | Path | Language") -> "Language":
    """As `parser.load_pipeline`; of one that was begun apart only `chosen_phrases` may be asked."""
    one = _begun.get()
    if one is not None and one.name == name:
        return cast("Language", one.loaded())
    from aas.phrases import parser

    return parser.load_pipeline(name)


def chosen_phrases(pipeline: "Language", answer: "Answer", **how: Any) -> Chosen:
    """As `parser.chosen_phrases`."""
    if isinstance(pipeline, Apart):
        return pipeline.chosen_phrases(answer, how)
    from aas.phrases import parser

    return parser.chosen_phrases(pipeline, answer, **how)


def _load(name: str) -> None:
    global _pipeline
    with collector_paused():
        from aas.phrases.parser import load_pipeline
    _pipeline = load_pipeline(name)


def _chosen_phrases(answer: "Answer", how: dict[str, Any]) -> Chosen:
    from aas.phrases.parser import chosen_phrases

    return chosen_phrases(_pipeline, answer, **how)


def _result(asked: Future[T]) -> T:
    """What was found there; or what was raised, as if it were raised here."""
    try:
        return asked.result()
    except BrokenExecutor as error:
        raise ChildProcessError(
            "the process that finds phrases was killed (by the system, where the memory did not suffice): run the same "
            "command again."
        ) from error
    except Exception as error:
        raise error.with_traceback(None) from error.__cause__
