"""Names that never collide, files that are whole or absent."""

import json
import subprocess
import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aas.records import Answer, AttentionMaps, View
from aas.store import reference
from aas.store.atomic import write_text, written
from aas.store.attention import AttentionItem, ItemError, read_item, write_item
from aas.store.keys import MAX_BYTES, is_cut, quoted, result_keys, unquoted
from aas.store.photographs import image_file
from aas.store.runs import RunFolder
from aas.store.status import open_run

ROOT = Path(__file__).parent.parent


def keys(*paths: str) -> list[str]:
    return result_keys([PurePosixPath(path) for path in paths])


def test_stem_where_it_is_unique():
    assert keys("dog.jpg", "my cat.png", "日本.webp") == ["dog", "my cat", "日本"]


def test_extension_where_the_stem_is_shared():
    assert keys("a.jpg", "a.png", "b.jpg") == ["a.jpg", "a.png", "b"]


def test_case_insensitive_file_systems():
    assert keys("Dog.jpg", "dog.png") == ["Dog.jpg", "dog.png"]


def test_subfolders_are_part_of_the_name():
    assert keys("a.jpg", "x/a.jpg", "../a.jpg", "/x/a.jpg") == ["a", "x/a", "../a", "/x/a"]


def test_same_name_from_two_folders():
    assert keys("a.jpg", "a.jpg") == ["a.jpg", "a.jpg-2"]


@given(st.lists(st.text(min_size=1, max_size=8).filter(lambda s: s.strip("./") and "\0" not in s), max_size=8))
def test_names_are_unique_file_names(stems):
    found = [quoted(key) for key in keys(*(f"{stem}.png" for stem in stems))]
    assert len({name.casefold() for name in found}) == len(stems)
    assert not any(set(name) & set('/\\:*?"<>|\n') for name in found)


def test_quoted_is_reversible():
    for name in ("a/b", "100%", "x%2Fy", "tab\there", ".hidden", "../far/a.jpg", "caf\udce9", "%~", "é" * 112):
        assert unquoted(quoted(name)) == name and "/" not in quoted(name) and quoted(name)[0] != "."


@given(st.text(st.characters(), min_size=1), st.text(st.characters(), min_size=1))
def test_every_name_is_a_file_name(one, other):
    for name in (quoted(one * 40), quoted(other * 40)):
        assert name == quoted(unquoted(name)) or is_cut(name)
        assert len(name.encode()) <= MAX_BYTES and not name.startswith(".")
    assert (quoted(one * 40) == quoted(other * 40)) == (one * 40 == other * 40)


def test_a_failed_write_leaves_nothing(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), written(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


# ---- run folders ---------------------------------------------------------------------------------------------------

FAIL = """
import sys
from pathlib import Path
from aas.store.runs import RunFolder
run, name = RunFolder(Path(sys.argv[1]), ".json"), sys.argv[2]
for i in range(40):
    run.fail(f"{name}-{i}", "x" * 5000)
    run.forget_failures({f"{name}-{i - 1}"} if i % 2 else ())
"""


def test_processes_note_failures_at_once(tmp_path):
    """Appending and taking out lines exclude one another: nothing is lost, nothing is torn."""
    command = [sys.executable, "-c", FAIL, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], cwd=ROOT, stderr=subprocess.DEVNULL) for name in "abcd"]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    lines = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 20 and {json.loads(line)["error"] for line in lines} == {"x" * 5000}
    assert set(RunFolder(tmp_path, ".json").failures()) == {f"{name}-{i}" for name in "abcd" for i in range(1, 40, 2)}


def test_names_with_line_separators_fail_in_one_line(tmp_path):
    run = RunFolder(tmp_path, ".json")
    for name in ("scan\u20282.jpg", "b\x85.jpg", "c\r.jpg"):
        run.fail(name, "broken")
    assert list(run.failures()) == ["scan\u20282.jpg", "b\x85.jpg", "c\r.jpg"]
    run.forget_failures({"b\x85.jpg"})
    assert list(run.failures()) == ["scan\u20282.jpg", "c\r.jpg"]


def test_items_are_files_that_are_done(tmp_path):
    run = RunFolder(tmp_path, ".json")
    for name in ("a", "x/b", "run"):
        write_text(run.item_path(name), "{}")
    (tmp_path / ".half.json").write_text("")
    (tmp_path / "c.json").mkdir()
    (tmp_path / "results.json").write_text("[]")
    assert list(run.items()) == ["a", "run", "x/b"] and not run.is_done("c")


def test_a_status_needs_nothing_heavy(tmp_path):
    write_text(tmp_path / "run.json", json.dumps({"command": "infer-attn", "n_images": 2}))
    write_text(tmp_path / "a.jpg.safetensors", "")
    heavy = ("torch", "numpy", "spacy", "safetensors", "pycocotools")
    code = (
        "import sys; from pathlib import Path; from aas.store.status import status; "
        f"print(status(Path(sys.argv[1]))['waiting'], *[m for m in {heavy} if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout.split() == ["1"], found.stderr


@pytest.mark.parametrize("content", ["{", "[]", '{"arguments": {}}'])
def test_a_damaged_description_is_one_line(tmp_path, content):
    write_text(tmp_path / "run.json", content)
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        open_run(tmp_path)


# ---- photographs, and the items of the method's authors ---------------------------------------------------------


def test_the_photograph_of_a_stem(tmp_path):
    for name in ("a[1].jpg", "a1.jpg", "dog.json", "dog.2.jpg", "dog.png", "sub/cat.jpg"):
        write_text(tmp_path / name, "")
    found = {stem: image_file(tmp_path, stem).name for stem in ("a[1]", "dog", "sub/cat", "dog.png", "none")}
    assert found == {"a[1]": "a[1].jpg", "dog": "dog.png", "sub/cat": "cat.jpg", "dog.png": "dog.png", "none": "none"}
    assert reference.photograph(tmp_path / "items/a[1].pth", tmp_path) == tmp_path / "a[1].jpg"
    assert reference.photograph(tmp_path / "sub%2Fcat.pth", tmp_path) == tmp_path / "sub/cat.jpg"
    with pytest.raises(FileNotFoundError, match="there is no image gone"):
        reference.photograph(tmp_path / "gone.pth", tmp_path)


def test_an_item_of_the_authors_over_its_image(tmp_path):
    maps = torch.rand(2, 3, 3)
    torch.save({"attentions": maps, "sequences": torch.tensor([[1, 5, 6]]), "answer": "a dog"}, tmp_path / "a.pth")
    padded, stretched = (reference.read_answer(tmp_path / "a.pth", (60, 90), fit=fit)[1] for fit in ("pad", "stretch"))
    np.testing.assert_array_equal(padded.maps, maps.numpy())
    assert stretched.view.box_xyxy == (0, 0, 90, 60) and padded.view.box_xyxy == (0, -15, 90, 75)
    answer, _ = reference.read_answer(tmp_path / "a.pth", (60, 90))
    assert answer.token_ids == (5, 6) and answer.text == "a dog"
    torch.save({"attentions": maps * torch.nan, "sequences": torch.tensor([5, 6]), "answer": ""}, tmp_path / "b.pth")
    with pytest.raises(ItemError, match=r"b\.pth: .*not finite"):
        reference.read_answer(tmp_path / "b.pth", (60, 90))
    with pytest.raises(FileNotFoundError, match="No tokenizer 'no/such'"):
        reference.load_tokenizer("no/such")


@pytest.mark.parametrize("damage", [lambda maps: maps * np.nan, lambda maps: maps[:1], lambda maps: maps[0]])
def test_attention_that_is_not_whole(tmp_path, damage):
    maps = damage(np.ones((2, 4, 4), np.float32))
    answer = Answer("What?", "a dog", (5, 6), ((0, 1), (1, 5)))
    write_item(tmp_path / "a", AttentionItem("a", (60, 90), answer, AttentionMaps(maps, View((4, 4), (0, 0, 90, 60)))))
    with pytest.raises(ItemError, match="not an attention item, or damaged"):
        read_item(tmp_path / "a")
