"""`aas infer-attn`: run folders through the command, and the batches that fill them."""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from aas.capture import CaptureError
from aas.lmms import load_lmm
from aas.records import Answer, AttentionMaps, View
from aas.stages import infer_attn as task
from aas.store import reference
from aas.store.attention import AttentionItem, ItemError, read_item, write_item
from tests import command, tiny

SIZES_HW = [(60, 90), (90, 60), (64, 64), (41, 130), (200, 150)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    for i, (height, width) in enumerate(SIZES_HW):
        name = f"sub/photo {i}.png" if i == 3 else f"photo {i}.png"
        Image.fromarray(tiny.a_photo((height, width), seed=i)).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny.saved(tiny.family("llava"), tmp_path_factory.mktemp("model")))


def run(*arguments: object) -> tuple[int, str]:
    return command.run("infer-attn", *arguments)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_items_hold_what_the_model_says(photos, model, tmp_path):
    code, _ = run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 5, "--question", "Who?")
    assert code == 0
    assert set(contents(tmp_path)) == {f"photo {i}.png.safetensors" for i in (0, 1, 2, 4)} | {
        "sub%2Fphoto 3.png.safetensors"
    }
    item = read_item(tmp_path / "sub%2Fphoto 3.png.safetensors")
    lmm = load_lmm(model)
    answer, attention = lmm.run([lmm.prepare(tiny.a_photo((41, 130), seed=3), "Who?")], task.AskOptions(5))[0]
    assert (item.image, item.image_hw, item.answer) == ("sub/photo 3.png", (41, 130), answer)
    assert item.attention.view == attention.view
    np.testing.assert_allclose(item.attention.maps, attention.maps, atol=1e-6)
    description = json.loads((tmp_path / "run.json").read_text())
    assert description["command"] == "infer-attn" and description["arguments"]["question"] == "Who?"
    assert not (tmp_path / "failed.jsonl").exists()


def test_any_split_gives_the_same_bytes(photos, model, tmp_path):
    common = ("--images", photos, "--model", model, "--max-new-tokens", 4, "--batch-size", 1)
    assert run(*common, "--out", tmp_path / "whole")[0] == 0
    for chunk in (2, 0, 1):
        assert (
            run(*common, "--out", tmp_path / "parts", "--num-chunks", 3, "--chunk-idx", chunk, "--workers", 1)[0] == 0
        )
    whole = contents(tmp_path / "whole")
    assert len(whole) == len(SIZES_HW) and contents(tmp_path / "parts") == whole
    assert run(*common[:-1], 3, "--out", tmp_path / "batches")[0] == 0
    for name in whole:
        one, other = read_item(tmp_path / "whole" / name), read_item(tmp_path / "batches" / name)
        assert one.answer == other.answer
        np.testing.assert_allclose(one.attention.maps, other.attention.maps, atol=1e-6)


def test_a_killed_run_goes_on_to_the_same_result(photos, tmp_path):
    words = ("--images", photos, "--batch-size", 1, "--max-new-tokens", 12, "--out")
    assert run(*words, tmp_path / "whole")[0] == 0
    with command.program("infer-attn", *words, tmp_path / "killed") as process:
        while not contents(tmp_path / "killed"):
            time.sleep(0.005)
            assert process.code() is None
        os.kill(process.pid, signal.SIGKILL)
        assert process.ended()[0] == -signal.SIGKILL
    half = contents(tmp_path / "killed")
    assert len(half) < len(SIZES_HW)
    assert run(*words, tmp_path / "killed")[0] == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_a_bad_image_costs_nobody_else(photos, model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, source in enumerate(sorted(photos.glob("*.png"))[:2]):
        (folder / f"{i}.png").write_bytes(source.read_bytes())
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "empty.jpg").touch()
    out = tmp_path / "run"
    code, output = run("--images", folder, "--out", out, "--model", model, "--max-new-tokens", 3)
    assert code == 3 and "2 done, 0 were there, 2 failed" in output
    lines = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert [line["image"] for line in lines] == ["bad.jpg", "empty.jpg"] and "0 bytes" in lines[1]["error"]
    for name in ("bad.jpg", "empty.jpg"):
        (folder / name).write_bytes((folder / "0.png").read_bytes())
    code, output = run("--images", folder, "--out", out, "--model", model, "--max-new-tokens", 3)
    assert code == 0 and "2 done, 2 were there, 0 failed" in output
    assert not (out / "failed.jsonl").exists() and len(contents(out)) == 4


def test_given_answers(photos, model, tmp_path):
    lines = [
        {"image": "photo 0.png", "answer": "A dog and a cat"},
        {"image": str(photos / "photo 1.png"), "answer": "a bench", "question": "Where?"},
        {"image": "photo 2.png", "answer": "", "token_ids": [7, 50, 60]},
        {"image": "nowhere.png", "answer": "a dog"},
    ]
    answers = tmp_path / "answers.jsonl"
    answers.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    code, output = run("--images", photos, "--out", tmp_path / "run", "--model", model, "--answers", answers)
    assert code == 3 and "3 done" in output and "nowhere.png" in (tmp_path / "run/failed.jsonl").read_text()
    item = read_item(tmp_path / "run/photo 0.png.safetensors")
    assert item.answer.text == "A dog and a cat" and len(item.attention.maps) == len(item.answer.token_ids)
    assert read_item(tmp_path / "run/photo 1.png.safetensors").answer.question == "Where?"
    assert read_item(tmp_path / "run/photo 2.png.safetensors").answer.token_ids == (7, 50, 60)


@pytest.mark.parametrize(
    "images",
    [
        [{"id": 1, "file_name": "photo 0.png"}, {"id": 2, "file_name": "gone.png"}],
        [{"id": "photo 0", "file_name": "photo 0.png"}, {"id": "gone"}],
    ],
    ids=["COCO", "GranD-f"],
)
def test_images_of_an_annotation(photos, model, tmp_path, images):
    annotation = tmp_path / "annotation.json"
    annotation.write_text(json.dumps({"images": images, "annotations": []}))
    code, _ = run("--images", photos, "--ref-anno", annotation, "--out", tmp_path / "run", "--model", model,
                  "--max-new-tokens", 2)  # fmt: skip
    assert code == 3 and set(contents(tmp_path / "run")) == {"photo 0.png.safetensors"}
    assert "no such file" in (tmp_path / "run/failed.jsonl").read_text()


def test_a_list_of_images(photos, model, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"# two\n{photos}/photo 0.png\n\n{photos}/sub/photo 3.png\n")
    assert run("--images", listed, "--out", tmp_path / "run", "--model", model, "--max-new-tokens", 2)[0] == 0
    assert len(contents(tmp_path / "run")) == 2


@pytest.mark.parametrize("keep, leading", [("mean", ()), ("layers", (2,)), ("heads", (2, 1))])
def test_what_is_kept(photos, model, tmp_path, keep, leading):
    assert run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 3, "--keep", keep,
               "--layers", "0,-1", "--heads", "-2", "--num-chunks", 5)[0] == 0  # fmt: skip
    (name,) = contents(tmp_path)
    item = read_item(tmp_path / name)
    assert item.attention.maps.shape == (*leading, len(item.answer.token_ids), 4, 4)
    assert item.reduction == {"keep": keep, "layers": [0, -1], "heads": [-2]}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--num-beams", 3], "beam"),
        (["--num-chunks", 2, "--chunk-idx", 2], "--chunk-idx 2"),
        (["--images", "/nowhere"], "/nowhere"),
        (["--heads", "x"], "--heads 'x'"),
        (["--heads", "9"], "4 heads"),
        (["--keep", "all"], "'all' is not one of 'mean', 'layers', 'heads'"),
        (["--batch-size", "0"], "--batch-size '0'"),
        (["--temperature", "-1"], "--temperature"),
        (["--question", " "], "--question"),
        (["--model", "no/such-model"], "no/such-model"),
        (["--answers", "/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_a_usage_error_writes_nothing(photos, model, tmp_path, arguments, message):
    code, output = run("--images", photos, "--out", tmp_path / "run", "--model", model, *arguments)
    assert code == 2 and message in output
    assert not (tmp_path / "run").exists()


def test_another_run_is_not_mixed_in(photos, model, tmp_path):
    common = ("--images", photos, "--out", tmp_path, "--model", model, "--num-chunks", 5)
    assert run(*common, "--max-new-tokens", 2)[0] == 0
    before = contents(tmp_path)
    code, output = run(*common, "--max-new-tokens", 3)
    assert code == 2 and "max_new_tokens was 2 and is now 3" in output and contents(tmp_path) == before


def test_out_of_memory_halves_the_batch(photos, model, tmp_path, monkeypatch):
    sizes = []
    answer = task.LMM.run

    def short_of_memory(self, batch, options, **how):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(self, batch, options, **how)

    monkeypatch.setattr(task.LMM, "run", short_of_memory)
    code, output = run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 2)
    assert code == 0 and "batches of 2" in output and "batches of 1" in output
    assert sizes == [4, 2, 1, 1, 1, 1, 1] and len(contents(tmp_path)) == 5


def test_one_broken_item_of_a_batch_fails_alone(photos, model, tmp_path, monkeypatch):
    answer = task.LMM.run

    def fails_at_one(self, batch, options, **how):
        if any(one.grids[0].view.box_xyxy[3] > 150 for one in batch):
            raise CaptureError("broken")
        return answer(self, batch, options, **how)

    monkeypatch.setattr(task.LMM, "run", fails_at_one)
    assert run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 2)[0] == 3
    assert len(contents(tmp_path)) == 4
    (line,) = (tmp_path / "failed.jsonl").read_text().splitlines()
    assert "broken" in line and "photo 4" in line


def test_a_full_disk_stops_cleanly(photos, model, tmp_path, monkeypatch):
    sync = os.fsync

    def full(descriptor):
        if len(contents(tmp_path)) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    code, output = run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 2)
    assert code == 1 and "no space left" in output
    assert len(contents(tmp_path)) == 2 and not list(tmp_path.glob(".*.part")), "nothing half-written"
    monkeypatch.setattr(os, "fsync", sync)
    assert run("--images", photos, "--out", tmp_path, "--model", model, "--max-new-tokens", 2)[0] == 0
    assert len(contents(tmp_path)) == 5


def an_item() -> AttentionItem:
    maps = np.random.default_rng(0).random((3, 2, 5), np.float32)
    answer = Answer("Was ist da?", "ein Käfer 🐞", (5, 6, 7), ((0, 3), (3, 9), (9, 11)))
    attention = AttentionMaps(maps, View((2, 5), (-1.5, 0.0, 7.25, 9.0), "tiles"), "self")
    return AttentionItem("a/b.png", (9, 7), answer, attention, "m", "t", {"keep": "mean", "layers": None, "heads": [1]})


def test_an_item_comes_back_as_it_was(tmp_path):
    write_item(tmp_path / "a.safetensors", an_item())
    back = read_item(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(back.attention.maps, an_item().attention.maps)
    assert (back.answer, back.image_hw, back.reduction) == (an_item().answer, (9, 7), an_item().reduction)
    assert back.attention.view == an_item().attention.view and back.attention.alignment == "self"


def test_the_same_item_gives_the_same_bytes_in_another_process(tmp_path):
    """Whose order of sets is another."""
    code = (
        "import pickle, sys; from pathlib import Path; from aas.store.attention import write_item; "
        "write_item(Path(sys.argv[1]), pickle.load(sys.stdin.buffer))"
    )
    write_item(tmp_path / "a", an_item())
    command = [sys.executable, "-c", code, tmp_path / "b"]
    subprocess.run(command, check=True, input=pickle.dumps(an_item()), cwd=Path(__file__).parent.parent)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_items_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_item(path, an_item())
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-4], b"x" * 100):
        path.write_bytes(damaged)
        with pytest.raises(ItemError, match=r"a\.safetensors"):
            read_item(path)
        with pytest.raises(ItemError, match=r"a\.safetensors"):
            reference.read_item(path)
    with pytest.raises(FileNotFoundError):
        read_item(tmp_path / "gone")


def test_items_of_the_reference(shared_dir):
    golden = np.load(shared_dir / "golden/attn/llava-tiny/all-heads/dog.npz")
    text, token_ids, maps = reference.read_item(shared_dir / "golden/segment/attn_pth/all-heads/dog.pth")
    assert text.startswith("The image features a small brown dog")
    assert token_ids == golden["token_ids"].tolist()
    np.testing.assert_array_equal(maps, golden["maps"])
