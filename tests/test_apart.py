"""A pipeline in a process of its own says what one here says; it ends with the command, however that ends."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from spacy.language import Language

from aas.phrases import parser
from aas.phrases.apart import Apart, chosen_phrases, load_pipeline, pipeline_apart
from aas.records import Answer
from aas.store.results import read_result
from tests.command import program
from tests.test_behaviour_resume import is_running
from tests.test_one_line import line_of
from tests.test_stopping import children, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are not forked by default")
TEXT = "A dog and the cat lie on it."
ANSWER = Answer("", TEXT, tuple(range(len(TEXT))), tuple((i, i + 1) for i in range(len(TEXT))))


@contextmanager
def begun(name: str) -> Iterator[tuple[Apart, int]]:
    """A pipeline apart, and its process."""
    one = Apart(name)
    ((pid, _),) = one.pool._processes.items()
    try:
        yield one, pid
    finally:
        one.end()
    wait_for(lambda: not is_running(pid))


def test_phrases_and_errors_are_those_of_a_pipeline_here():
    here, broken = parser.load_pipeline("embedded"), Answer("", TEXT, (), ())
    with begun("embedded") as (pipeline, _):
        assert pipeline.loaded() is pipeline
        for drop, n in (((), 3), (("pronouns",), 2)):
            found = chosen_phrases(pipeline, ANSWER, words="chunk", drop=drop)
            assert found == chosen_phrases(here, ANSWER, words="chunk", drop=drop)
            assert len(found[0]) == n
        assert line_of(lambda: chosen_phrases(pipeline, broken)) == line_of(lambda: chosen_phrases(here, broken))


@pytest.mark.parametrize("name", ["nothing_such", "numpy", "folder"])
def test_what_cannot_be_loaded_is_the_same_line(tmp_path: Path, monkeypatch, name: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with begun(name) as (pipeline, _):
        assert line_of(pipeline.loaded) == line_of(lambda: load_pipeline(name))


def test_a_killed_one_is_one_line():
    with begun("embedded") as (pipeline, pid):
        pipeline.loaded()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="the process that finds phrases was killed"):
            chosen_phrases(pipeline, ANSWER)


def test_nothing_is_begun_where_spacy_is_here_already():
    with pipeline_apart("embedded"):
        assert isinstance(load_pipeline("embedded"), Language)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (60, 40), (200, 9, 9)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_command_that_grounds_one_photograph(photo: Path, tmp_path: Path):
    words = ("ground", photo, "--out", tmp_path / "out", "--answer", "A dog and the cat.", "--no-png")
    with program(*words, anew=True) as process:
        wait_for(lambda: len(children(process.pid)) == 2 or process.code() is not None)
        assert process.code() is None
        code, _, said = process.ended()
        assert code == 0 and "1 done" in said, said
        wait_for(lambda: not children(process.pid))
    assert list(read_result(tmp_path / "out/a.json").phrases) == ["A dog", "the cat"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_stays_behind(photo: Path, tmp_path: Path, number: int):
    with program("ground", photo, "--out", tmp_path / "out", anew=True) as process:
        wait_for(lambda: len(children(process.pid)) == 2)
        os.kill(process.pid, number)
        start = time.monotonic()
        code, _, said = process.ended(30)
        assert code == (130 if number == signal.SIGINT else -number) and time.monotonic() - start < 6
        wait_for(lambda: not children(process.pid))
    assert "Traceback" not in said and said.count("aas: stopped.") == (number == signal.SIGINT)
