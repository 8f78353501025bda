"""Names, lists and folders as people have them: what other systems wrote, and what nobody meant to be there."""

import json
import logging
import os
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from aas.cli import app
from aas.datasets.answers import read_answers
from aas.datasets.sources import find_sources, read_json
from aas.images import read_image
from aas.store.attention import read_item
from aas.store.results import read_result
from aas.store.status import status, verify
from tests.command import done

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


@pytest.mark.parametrize(
    "key, value",
    [
        ("image", "a\0.jpg"), ("image", " "), ("image", 1), ("answer", "a\0dog"), ("question", "what\0"), ("id", True),
        ("id", 1.5), ("id", ""), ("id", []), ("token_ids", [1.5]), ("token_ids", [2**70]), ("token_ids", [-1]),
        ("token_ids", [True]), ("token_ids", False), ("spans", [[0.5, 2]]), ("spans", [[0, float("inf")]]),
        ("spans", [[float("nan"), 2]]), ("spans", [[0, 2**70]]), ("spans", [["a", 2]]), ("spans", {}),
    ],
)  # fmt: skip
def test_values_that_no_answer_has(tmp_path: Path, key: str, value: object):
    row = {"image": "a.jpg", "answer": "a dog"} | {key: value}
    (tmp_path / "answers.jsonl").write_text(f"{json.dumps({'image': 'b.jpg', 'answer': 'a cat'})}\n{json.dumps(row)}\n")
    with pytest.raises(ValueError, match=r"answers\.jsonl, line 2"):
        read_answers(tmp_path / "answers.jsonl")


def test_answers_in_other_spellings(tmp_path: Path):
    row = {"image": "a.jpg", "answer": "a dog", "id": 7.0, "token_ids": [5.0, "6"], "spans": [["0", 5.0]]}
    (tmp_path / "answers.jsonl").write_text(json.dumps(row))
    (found,) = read_answers(tmp_path / "answers.jsonl")
    assert (found.id, found.token_ids, found.spans) == ("7", (5, 6), ((0, 5),))


def test_json_that_is_nested_too_deeply(tmp_path: Path):
    (tmp_path / "deep").write_text("[" * 100_000)
    for read, message in ((read_answers, "line 1 is not valid JSON"), (read_json, "deep is not valid JSON")):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "deep")


LONG = "/".join(letter * 60 for letter in "abcd") + "/photo.jpg"
LATIN = os.fsdecode(b"caf\xe9.jpg")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("a.jpg", "n" * 245 + ".jpg", LONG, LATIN, "../far/b.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (90, 140, 60)).save(path)
    return tmp_path / "photos"


def stages(images: Path, work: Path, n: int) -> None:
    """All that can be done with attention, of n images."""
    done("infer-attn", "--images", images, "--out", work / "r", "--max-new-tokens", 8)
    done("segment", "gcg", "--attn", work / "r", "--images", images, "--out", work / "s")
    done("show", "masks", work / "s", "--out", work / "shown")
    done("show", "attn", work / "r", "--out", work / "seen")
    for run in ("r", "s"):
        assert status(work / run)["done"] == n and verify(work / run) == []
    assert len(list((work / "shown").glob("*.png"))) == n + 1 and len(list((work / "seen").glob("*.png"))) == n


def test_every_name_that_a_file_can_have(photographs: Path, tmp_path: Path):
    stages(photographs, tmp_path, 4)
    images = {read_item(path).image for path in (tmp_path / "r").glob("*.safetensors")}
    assert images == {"a.jpg", "n" * 245 + ".jpg", LONG, LATIN}
    ids = {read_result(path).image_id for path in (tmp_path / "s").glob("*.json") if path.name != "run.json"}
    assert ids == {"a", "n" * 245, LONG.removesuffix(".jpg"), LATIN.removesuffix(".jpg")}


@pytest.mark.parametrize("far", ["../far/b.jpg", "{}/far/b.jpg"])
def test_a_list_of_photographs_elsewhere(photographs: Path, tmp_path: Path, far: str):
    (photographs / "list.txt").write_text("a.jpg\n" + far.format(tmp_path) + "\n")
    stages(photographs / "list.txt", tmp_path, 2)


def test_expressions_name_an_image_by_its_path(photographs: Path, tmp_path: Path):
    (tmp_path / "answers.jsonl").write_text(json.dumps({"image": str(photographs / "a.jpg"), "answer": "a dog"}))
    same = ("--images", photographs, "--answers", tmp_path / "answers.jsonl")
    done("infer-attn", *same, "--out", tmp_path / "r")
    done("segment", "expressions", "--attn", tmp_path / "r", *same, "--out", tmp_path / "s")
    assert status(tmp_path / "s")["done"] == 1


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_terminal_that_cannot_write_it(photographs: Path, tmp_path: Path, encoding: str, as_json: bool):
    answer = "a dog 🐕"
    words = ["ground", str(photographs / "a.jpg"), "--answer", answer, "--out", str(tmp_path), *["--json"] * as_json]
    result = CliRunner(charset=encoding).invoke(app, words)
    assert result.exit_code == 0 and (tmp_path / "report.html").is_file(), result.stderr
    said = result.stdout_bytes.decode(encoding)
    assert json.loads(said)["caption"] == answer if as_json else r"\U0001f415" in said


def test_what_is_not_looked_at_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = tmp_path / "holiday"
    for name in ("holiday/a.jpg", "holiday/b.jp2", "holiday/c.jpe", "holiday/d.mpo", "elsewhere/e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(path, format={".jp2": "JPEG2000", ".mpo": "MPO"}.get(path.suffix, "JPEG"))
    for name in ("IMG_0001.HEIC", "noextension", ".hidden", "out/run.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "2024").symlink_to("../elsewhere")
    (folder / "broken.jpg").symlink_to("/gone.jpg")
    with caplog.at_level("WARNING", logger="aas"):
        logging.getLogger("aas").propagate = True
        found = find_sources(folder, outside=folder / "out")
    assert [source.key for source in found] == ["a.jpg", "b.jp2", "c.jpe", "d.mpo"]
    assert all(read_image(source.path).shape == (48, 64, 3) for source in found)
    assert "4 not looked at" in caplog.text and "2024/, IMG_0001.HEIC, broken.jpg, noextension" in caplog.text
