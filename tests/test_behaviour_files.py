"""Names, lists and folders as people have them: what other systems wrote, and what nobody meant to be there."""

import json
from pathlib import Path

import pytest

from aas.datasets.answers import read_answers
from aas.datasets.sources import find_sources, read_json

BREAKS = (
    "\u2028",
    "\u2029",
    "\x85",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
)  # for str.splitlines
UNIX, WINDOWS = "\n", "\r\n"


@pytest.mark.parametrize("end", [UNIX, WINDOWS])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_given_answers_of_any_program(tmp_path: Path, encoding: str, end: str):
    said = [f"a dog{mark}on the grass" for mark in ("\u2028", "\u2029", "\x85")]
    lines = [json.dumps({"image": f"{i}.jpg", "answer": text}, ensure_ascii=False) for i, text in enumerate(said)]
    (tmp_path / "answers.jsonl").write_bytes((end.join(lines) + end).encode(encoding))
    assert [row.text for row in read_answers(tmp_path / "answers.jsonl")] == said


@pytest.mark.parametrize("end", [UNIX, WINDOWS])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_lists_of_any_program(tmp_path: Path, encoding: str, end: str):
    names = sorted(["a.jpg", "Haus am See.jpg", "日本.png", *(f"no{mark}image.jpg" for mark in BREAKS)])
    (tmp_path / "list.txt").write_bytes(end.join(["# photographs", *names, ""]).encode(encoding))
    assert [source.key for source in find_sources(tmp_path / "list.txt")] == names


def test_an_annotation_with_a_mark(tmp_path: Path):
    (tmp_path / "truth.json").write_bytes('{"images": []}'.encode("utf-8-sig"))
    assert read_json(tmp_path / "truth.json") == {"images": []}


def test_what_is_no_text_is_named(tmp_path: Path):
    (tmp_path / "answers.jsonl").write_bytes('{"image": "café.jpg", "answer": "a cup"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"answers\.jsonl is no UTF-8 text .* save it as UTF-8"):
        read_answers(tmp_path / "answers.jsonl")


def test_half_a_character_is_named(tmp_path: Path):
    (tmp_path / "answers.jsonl").write_text('{"image": "a.jpg", "answer": "a dog \\ud83d"}\n')
    with pytest.raises(ValueError, match="line 1: the answer holds half a character"):
        read_answers(tmp_path / "answers.jsonl")
