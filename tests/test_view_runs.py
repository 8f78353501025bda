"""`aas view`: the page of one run, beside the truth, and of two runs."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from aas import rle
from aas.cli import app
from aas.records import Answer, AttentionMaps, Phrase, View
from aas.store.attention import SUFFIX, AttentionItem, write_item
from aas.store.instances import Detection, InstanceResult, write_instances
from aas.store.results import result_of, write_result
from aas.store.runs import RunFolder
from tests import places, tiny
from tests.command import done

HW = (60, 90)
VIEW = View((2, 3), (0.0, 0.0, 90.0, 60.0))
ANSWER = Answer("What is it?", "a dog, a cat", (3, 4, 5), ((0, 5), (5, 6), (6, 12)))
MAPS = np.arange(18, dtype=np.float32).reshape(3, 2, 3) ** 2


def box(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[10:50, x0:x1] = True
    return mask


TRUE = {"one": [box(0, 40), box(50, 90)], "two": [box(20, 60)]}


def view(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["view", *map(str, arguments), "--no-open"])
    return result.exit_code, result.output


def page(path: Path) -> tuple[dict, list[dict]]:
    """What the page is told, and the details of each photograph."""
    blocks = path.read_text().split('<script type="application/json"')[1:]
    told = [json.loads(block.partition(">")[2].partition("</script>")[0]) for block in blocks]
    return told[-1], told[:-1]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    attn = RunFolder(tmp_path / "attn", SUFFIX)
    attn.begin("infer-attn", {"model": "tiny"}, {"inputs": {"images": str(tmp_path / "photos")}})
    for name in TRUE:
        Image.new("RGB", HW[::-1], "grey").save(tmp_path / f"photos/{name}.png")
        item = AttentionItem(f"{name}.png", HW, ANSWER, AttentionMaps(MAPS, VIEW))
        write_item(attn.item_path(f"{name}.png"), item)
    true = [(name, mask) for name, masks in TRUE.items() for mask in masks]
    images = {"one": 7, "two": 8}
    content = {
        "images": [{"id": i, "file_name": f"{name}.png"} for name, i in images.items()],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": images[name], "category_id": 1, "segmentation": rle.of_mask(mask)}
            for i, (name, mask) in enumerate(true)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


def run_of(folder: Path, name: str, found: dict[str, list[np.ndarray]]) -> Path:
    """A run of `aas segment gcg` that found these masks."""
    run = RunFolder(folder / name, ".json")
    inputs = {"images": str(folder / "photos"), "attn": str(folder / "attn")}
    run.begin("segment gcg", {"segmenter": "tiny-sam"}, {"inputs": inputs, "preset": {"merge": "max"}})
    phrases = [Phrase("a dog", (0, 5), (2, 5), (0,)), Phrase("a cat", (7, 12), (9, 12), (1, 2))]
    for key, masks in found.items():
        columns = phrases[: len(masks)], list(map(rle.of_mask, masks)), [(5, 20)] * len(masks), [0.5] * len(masks)
        result = result_of(*columns, image_id=key, question=ANSWER.question, caption=ANSWER.text)
        write_result(run.item_path(key), result)
    return run.path


def test_a_run_of_masks_has_the_maps_that_it_was_made_of(folder):
    masks = run_of(folder, "masks", TRUE)
    code, output = view(masks)
    assert code == 0 and output.strip().endswith(str(masks / "report.html"))
    told, details = page(masks / "report.html")
    assert [one["name"] for one in told["entries"]] == ["one", "two"] and told["sort"] == ""
    (panel,) = told["entries"][0]["panels"]
    assert [one["text"] for one in panel["phrases"]] == ["a dog", "a cat"] and panel["sources"] == ["attention"]
    assert [words for words, _ in told["entries"][0]["links"]] == ["JSON", "Photograph"]
    maps, centred = details[0]["panels"][0]["maps"][0], MAPS - MAPS.mean(axis=0)
    expected = np.stack([centred[0], centred[1:].max(axis=0)])
    found = np.frombuffer(base64.b64decode(maps["phrases"]["bytes"]), np.uint8).reshape(2, 2, 3)
    assert (found.reshape(2, -1).argsort() == expected.reshape(2, -1).argsort()).all()
    assert details[0]["panels"][0]["tokens"] == [[0, 5], [5, 6], [6, 12]]
    content = (masks / "report.html").read_text()
    assert "tiny-sam" in content and "aas segment gcg" in content and ">tiny<" in content


def test_every_source_of_maps_stands_beside_the_one_that_pointed(folder):
    """`lens` points as it is, `mean` without its answer's mean; a phrase's map merges the maps of its tokens."""
    lens = MAPS[:, ::-1].copy()
    attention = AttentionMaps(MAPS, VIEW, beside={"lens": lens})
    for name in TRUE:
        item = AttentionItem(f"{name}.png", HW, ANSWER, attention)
        write_item(RunFolder(folder / "attn", SUFFIX).item_path(f"{name}.png"), item)
    masks = run_of(folder, "masks", TRUE)
    assert view(masks)[0] == 0
    told, details = page(masks / "report.html")
    assert told["entries"][0]["panels"][0]["sources"] == ["mean", "lens"]
    expected = np.stack([lens[0], lens[1:].max(axis=0)])
    found = details[0]["panels"][0]["maps"][1]["phrases"]["bytes"]
    cells = np.frombuffer(base64.b64decode(found), np.uint8).reshape(2, -1)
    assert (cells.argmax(axis=1) == expected.reshape(2, -1).argmax(axis=1)).all()


def test_maps_are_those_that_pointed(folder):
    """Without the mean over the answer, of which its reasoning is no part; of a phrase that is the whole answer as they
    are: nothing specific would remain."""
    thought = "<think>hm</think>"
    at = len(thought)
    answer = Answer("What is it?", f"{thought}a dog", (2, 3, 4), ((0, at), (at, at + 1), (at + 1, at + 5)))
    maps = np.array([[0, 90, 0], [1, 4, 2], [5, 1, 3]], np.float32).reshape(3, 1, 3)
    attention = AttentionMaps(maps, View((1, 3), (0.0, 0.0, 90.0, 60.0)))
    write_item(RunFolder(folder / "attn", SUFFIX).item_path("one.png"), AttentionItem("one.png", HW, answer, attention))
    run = RunFolder(run_of(folder, "masks", {}), ".json")
    phrases = [Phrase("a dog", (at, at + 5), (at, at + 5), tokens) for tokens in ((1,), (1, 2))]
    result = result_of(phrases, [rle.of_mask(box(0, 40))] * 2, [(5, 20)] * 2, [0.5] * 2, image_id="one", question="",
                       caption=answer.text)  # fmt: skip
    write_result(run.item_path("one"), result)
    assert view(run.path)[0] == 0
    _, details = page(run.path / "report.html")
    found = np.frombuffer(base64.b64decode(details[0]["panels"][0]["maps"][0]["phrases"]["bytes"]), np.uint8)
    # 1 4 2 minus the answer's mean 3 2.5 2.5, and the larger of 1 4 2 and 5 1 3.
    assert found.reshape(2, 3).tolist() == [[0, 255, 109], [255, 128, 0]]


def test_a_run_of_attention_can_be_walked(folder):
    assert view(folder / "attn")[0] == 0
    told, details = page(folder / "attn/report.html")
    assert [one["name"] for one in told["entries"]] == ["one.png", "two.png"]
    assert told["entries"][0]["panels"][0]["pieces"] == [["a dog, a cat", None]]
    assert details[0]["panels"][0]["maps"][0]["tokens"]["size"] == [2, 3]


def test_a_page_of_attention_says_how_its_maps_are_seen(folder):
    """It has no masks."""
    assert view(folder / "attn")[0] == 0
    content = (folder / "attn/report.html").read_text()
    assert "a word of an answer" in content and "Point at a phrase" not in content


def test_photographs_are_called_as_the_runs_annotation_calls_them(folder):
    run = RunFolder(folder / "instances", ".json")
    inputs = {"images": str(folder / "photos"), "ref_anno": str(folder / "truth.json")}
    run.begin("segment instance", {}, {"inputs": inputs})
    found = Detection(7, 1, "thing", "a dog", rle.of_mask(box(0, 40)), 0.5, 1600, (5, 20))
    write_instances(run.item_path("7"), InstanceResult(7, "a dog", (found,)))
    assert view(run.path) == (0, f"{run.path / 'report.html'}\n")
    (entry,) = page(run.path / "report.html")[0]["entries"]
    assert dict(entry["links"])["Photograph"] == "./../photos/one.png"


def test_what_was_given_and_decides_stands_above_both_runs(folder):
    one, other = run_of(folder, "one", TRUE), run_of(folder, "other", TRUE)
    description = json.loads((other / "run.json").read_text())
    description["arguments"] |= {"points": 1, "question": "What?", "drop": [], "reasoning": True}
    description["options"] = {"points": 1, "question": "What?", "drop": [], "reasoning": True, "images": "photos"}
    (other / "run.json").write_text(json.dumps(description))
    assert view(one, other, "--out", folder / "page.html")[0] == 0
    content = (folder / "page.html").read_text()
    assert "one · Model tiny · Segmenter tiny-sam · Command aas segment gcg" in content
    assert "Segmenter tiny-sam · Points 1 · Drop none · Reasoning yes · Command" in content


def test_the_truth_stands_beside_the_worst_first(folder):
    masks = run_of(folder, "masks", {"one": [box(0, 20), box(50, 90)], "two": [box(0, 40)]})
    assert view(masks, "--gt", folder / "truth.json", "--out", folder / "page.html")[0] == 0
    told, _ = page(folder / "page.html")
    one, two = told["entries"]
    assert told["sort"] == "+IoU"
    assert one["figures"]["IoU"] == pytest.approx((0.5 + 1) / 2) and two["figures"]["IoU"] == pytest.approx(1 / 3)
    assert [panel["title"] for panel in one["panels"]] == ["Found", "Ground truth"]
    found, truth = one["panels"]
    assert [phrase["figures"] for phrase in found["phrases"]] == [{"score": 0.5, "IoU": 0.5}, {"score": 0.5, "IoU": 1}]
    assert truth["pieces"] == [] and [phrase["figures"] for phrase in truth["phrases"]] == [{}, {}]
    assert [phrase["thing"] for phrase in truth["phrases"]] == [phrase["thing"] for phrase in found["phrases"]]


def test_the_truth_is_found_by_ids_in_any_spelling(folder):
    run = RunFolder(run_of(folder, "masks", {}), ".json")
    for name, i in (("one", "7"), ("two", 8.0)):
        result = result_of([], [], [], [], image_id=i, question="", caption="", image=f"{name}.png")
        write_result(run.item_path(str(i)), result)
    assert view(run.path, "--gt", folder / "truth.json")[0] == 0
    told, _ = page(run.path / "report.html")
    assert [len(one["panels"][-1]["phrases"]) for one in told["entries"]] == [2, 1]


def test_the_truth_of_other_images_is_refused(folder):
    masks = run_of(folder, "masks", TRUE)
    content = json.loads((folder / "truth.json").read_text())
    for entry in content["images"]:
        entry["file_name"] = f"other-{entry['file_name']}"
    (folder / "truth.json").write_text(json.dumps(content))
    code, said = view(masks, "--gt", folder / "truth.json")
    assert code == 2 and "has masks of none of these images" in said and not (masks / "report.html").exists()


def test_two_runs_side_by_side(folder):
    better = run_of(folder, "better", TRUE)
    worse = run_of(folder, "worse", {"one": [box(0, 20), box(50, 90)], "three": [box(0, 10)]})
    code, _ = view(better, worse, "--gt", folder / "truth.json", "--out", folder / "page.html")
    told, _ = page(folder / "page.html")
    (one,) = told["entries"]  # what both have
    assert code == 0 and told["sort"] == "+B − A"
    assert one["figures"] == pytest.approx({"IoU of A": 1, "IoU of B": 0.75, "B − A": -0.25})
    assert [panel["title"] for panel in one["panels"]] == ["better", "worse", "Ground truth"]
    assert view(better, worse, "--out", folder / "page.html")[0] == 0
    (one,) = page(folder / "page.html")[0]["entries"]
    assert one["figures"] == pytest.approx({"IoU": 0.75}) and len(one["panels"]) == 2


def test_what_cannot_be_shown_is_said(folder):
    masks = run_of(folder, "masks", TRUE)
    (folder / "photos/one.png").unlink()
    code, output = view(masks)
    assert code == 3 and "one" in output
    assert "1 photograph, 1 failed" in (masks / "report.html").read_text()
    assert view(folder / "photos")[0] == 2
    assert view(masks, masks, masks)[0] == 2
    assert view(masks, "--gt", folder / "nothing.json")[0] == 2
    empty = run_of(folder, "empty", {})
    assert view(empty)[0] == 2


def test_photographs_that_were_grounded_may_have_moved(tmp_path):
    model = tiny.saved(tiny.family("llava"), tmp_path / "lmm")
    photos = Path(places.in_folder(tmp_path / "photos", places.photographs()))
    asking = ("--model", model, "--segmenter", "map", "--max-new-tokens", 4, "--workers", 0)
    done("ground", photos, *asking, "--out", tmp_path / "run")
    photos.rename(tmp_path / "moved")
    code, said = view(tmp_path / "run")
    assert code == 3 and "no such file" in said
    code, said = view(tmp_path / "run", "--images", tmp_path / "moved")
    assert code == 0, said
