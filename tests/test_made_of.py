"""What a run that goes on notices of single items: another photograph, other attention, another line of --answers."""

import errno
import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aas.stages.segment_jobs import read_annotation
from aas.store import made_of
from aas.store.atomic import write_first
from aas.store.fingerprints import PROBES, WHOLE, fingerprint
from aas.store.made_of import MadeOf
from aas.store.runs import RunFolder
from tests import tiny
from tests.command import run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, name in enumerate(("a.bmp", "b.bmp", "c.bmp")):
        Image.fromarray(tiny.a_photo((48, 64), seed=i)).save(folder / name)
    return folder


def exchange(photograph: Path, other: Path) -> None:
    """Another photograph of the same size, name and time: only its bytes tell."""
    times = photograph.stat()
    assert times.st_size == other.stat().st_size
    photograph.write_bytes(other.read_bytes())
    os.utime(photograph, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_another_photograph_of_the_same_name_and_size(photos: Path, tmp_path: Path):
    attn, masks, grounded = tmp_path / "attn", tmp_path / "masks", tmp_path / "grounded"
    stages = {
        attn: ("infer-attn", "--images", photos, "--max-new-tokens", 3, "--out", attn),
        masks: ("segment", "gcg", "--attn", attn, "--images", photos, "--out", masks),
        grounded: ("ground", photos, "--max-new-tokens", 3, "--out", grounded),
    }
    for command in stages.values():
        assert run(*command)[0] == 0
    for path in photos.iterdir():
        os.utime(path, (0, 0))  # a copy of the folder
    for command in stages.values():
        assert run(*command)[0] == 0
    exchange(photos / "a.bmp", photos / "b.bmp")
    for out, command in stages.items():
        code, output = run(*command)
        assert code == 2 and f"{out} holds results of other files" in output and "photograph of a." in output
    code, output = run("segment", "gcg", "--attn", attn, "--images", photos, "--out", tmp_path / "new")
    assert code == 3 and "was captured of another photograph" in output and "2 done, 0 were there, 1 failed" in output
    (attn / "a.bmp.safetensors").unlink()
    code, output = run(*stages[attn])
    assert code == 0 and "1 done, 2 were there" in output
    (masks / "a.json").unlink()
    assert run(*stages[masks])[0] == 0, "made anew of the new photograph"
    shutil.copy(attn / "a.bmp.safetensors", attn / "b.bmp.safetensors")
    code, output = run(*stages[masks])
    assert code == 2 and "attention of b.json" in output


def test_lines_may_be_added_to_answers_but_not_changed(photos: Path, tmp_path: Path):
    answers, attn, masks, grounded = (tmp_path / name for name in ("answers.jsonl", "attn", "masks", "grounded"))
    stages = (
        ("infer-attn", "--images", photos, "--answers", answers, "--out", attn),
        ("segment", "expressions", "--answers", answers, "--attn", attn, "--images", photos, "--out", masks),
        ("ground", photos, "--answers", answers, "--out", grounded),
    )
    rows = [{"image": "b.bmp", "answer": "a dog"}, {"image": "a.bmp", "answer": "a cat", "id": "2"}]
    for n in (1, 2):  # the new line comes first
        answers.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows[:n])))
        for command in stages:
            code, output = run(*command)
            assert code == 0 and f"1 done, {n - 1} were there" in output
    answers.write_text("".join(json.dumps(row) + "\n" for row in (rows[0] | {"answer": "a horse"}, rows[1])))
    for command in stages:
        code, output = run(*command)
        assert code == 2 and "something else was asked of b" in output and "Lines may be added" in output


def test_a_line_that_failed_may_be_mended(photos: Path, tmp_path: Path):
    answers = tmp_path / "answers.jsonl"
    command = ("infer-attn", "--images", photos, "--answers", answers, "--out", tmp_path / "attn")
    good = json.dumps({"image": "b.bmp", "answer": "a dog"})
    answers.write_text(f'{good}\n{{"image": "a.bmp", "answer": "a cat", "token_ids": [5]}}\n')
    assert run(*command)[0] == 3
    answers.write_text(f'{good}\n{{"image": "a.bmp", "answer": "a cat"}}\n')
    code, output = run(*command)
    assert code == 0 and "1 done, 1 were there" in output


def test_a_chunk_sees_what_was_asked_of_another(tmp_path: Path):
    """Also where nothing is done yet, and where the fingerprint of the whole file is known."""
    one = RunFolder(tmp_path / "run", ".json")
    one.begin("ground", {"files": {"answers": "1"}}, {}, {"a": "dog", "b": "cat"})
    one.begin("ground", {"files": {"answers": "2"}}, {}, {"a": "dog", "b": "cat", "c": "owl"})
    with pytest.raises(ValueError, match="something else was asked of b "):
        one.begin("ground", {"files": {"answers": "3"}}, {}, {"b": "dog"})


def _begin(folder: Path, line: str, barrier, let_in) -> None:
    barrier.wait()
    try:
        RunFolder(folder, ".json").begin("ground", {}, {}, {"a": line})
        let_in.put(line)
    except ValueError:
        let_in.put(None)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_of_two_runs_with_other_answers_one_is_let_in(tmp_path: Path, monkeypatch, links: bool):
    if not links:
        monkeypatch.setattr("os.link", _no_links)
    context = multiprocessing.get_context("fork")
    for i in range(10):
        barrier, let_in = context.Barrier(2), context.Queue()
        both = [context.Process(target=_begin, args=(tmp_path / str(i), line, barrier, let_in)) for line in "xy"]
        for one in both:
            one.start()
        found = [let_in.get(timeout=20) for _ in both]
        for one in both:
            one.join()
        assert None in found and len(set(found)) == 2


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def _describe(folder: Path, question: str, barrier, let_in) -> None:
    barrier.wait()
    let_in.put(write_first(folder / "run.json", question))


def test_two_at_once_where_there_are_no_links(tmp_path: Path, monkeypatch):
    """As FAT and some network file systems have none."""
    monkeypatch.setattr("os.link", _no_links)
    monkeypatch.setattr(Path, "exists", lambda path, exists=Path.exists: (exists(path), time.sleep(0.1))[0])
    context = multiprocessing.get_context("fork")
    for i in range(3):
        barrier, let_in = context.Barrier(3), context.Queue()
        all_three = [
            context.Process(target=_describe, args=(tmp_path / str(i), name, barrier, let_in)) for name in "abc"
        ]
        for one in all_three:
            one.start()
        assert sum(let_in.get(timeout=20) for _ in all_three) == 1
        for one in all_three:
            one.join()


def test_a_file_is_read_again_only_where_it_may_have_changed(tmp_path: Path, monkeypatch):
    file, notes = tmp_path / "a.jpg", MadeOf(tmp_path / "run")
    file.write_bytes(b"photograph")
    notes.add([notes.told_of("a.json", {"photograph": file})])  # just written: its time tells nothing yet
    read = []
    monkeypatch.setattr(made_of, "_digest", lambda file, digest=made_of._digest: read.append(file) or digest(file))
    later = time.time() + 10
    monkeypatch.setattr(made_of.time, "time", lambda: later)
    for _ in range(3):
        assert notes.others([("a.json", {"photograph": file}), ("b.json", {"photograph": file})]) == []
    assert len(read) == 1, "once, then its time is known"
    file.write_bytes(b"photograpH")
    assert notes.others([("a.json", {"photograph": file})]) == ["photograph of a.json"]
    file.unlink()
    assert notes.others([("a.json", {"photograph": file})]) == [], "what is gone is nobody's"


@pytest.mark.parametrize("line", ["[]", '{"item": 1}', '{"item": "a", "photograph": 3}', '{"item": "a"', "[" * 9999])
def test_damaged_notes_are_passed_over(tmp_path: Path, line: str):
    notes = MadeOf(tmp_path)
    notes.path.write_text(line)
    notes.others_asked({"b": "dog"})
    assert notes.others([("a", {"photograph": notes.path})]) == [] and notes.others_asked({"b": "cat"}) == ["b"]


# ------------------------------------------------------------------------------------------ files of models


def test_folders_of_a_pipeline_are_part_of_it(tmp_path: Path):
    weights = tmp_path / "parser/model"
    for name in ("meta.json", "parser/model", "vocab/strings.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    before = fingerprint(tmp_path)
    for name in ("checkpoint-500/model.safetensors", "runs/events", ".cache/x", "vocab/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert fingerprint(tmp_path) == before, "what training leaves is no part"
    weights.write_text("parser/modeL")
    changed = fingerprint(tmp_path)
    weights.rename(weights.with_name("other"))
    assert len({before, changed, fingerprint(tmp_path)}) == 3


def test_weights_in_the_middle_of_a_large_file(tmp_path: Path):
    """A projector of some million weights between layers that were not trained."""
    large, rng = tmp_path / "weights.bin", np.random.default_rng(0)
    size = 4 * WHOLE
    with large.open("wb") as file:
        file.truncate(size)
    before = fingerprint(large)
    with large.open("r+b") as file:
        file.seek(size // 3)
        file.write(rng.bytes(2 * size // PROBES))
    assert fingerprint(large) != before


# ------------------------------------------------------------------------------------------ two images of one id


@pytest.mark.parametrize("other", [7, "7", 7.0])
def test_two_images_of_one_id_are_refused(tmp_path: Path, other: object):
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "a.jpg"}, {"id": other, "file_name": "b.jpg"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images}))
    with pytest.raises(ValueError, match=r"coco\.json: two images have the id .*, a\.jpg and b\.jpg"):
        read_annotation(tmp_path / "coco.json")
    (tmp_path / "coco.json").write_text(json.dumps({"images": [*images[:2], {"id": other, "file_name": "a.jpg"}]}))
    assert len(read_annotation(tmp_path / "coco.json").images) == 2, "an image that is there twice is one"
