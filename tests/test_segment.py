"""`aas segment` against the results of the method's authors, and its run folders."""

import json
import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from aas.choices import MaskChoice
from aas.geometry import cells_of_mask
from aas.records import View
from aas.segmenters.choice import attention_contrast, choose
from aas.segmenters.sam_family import SamFamily
from tests import tiny
from tests.command import run


def iou(one: dict, other: dict) -> float:
    """1 for two masks that are both empty."""
    return float(coco_mask.iou([one], [other], [0])[0, 0]) if coco_mask.area([one, other]).any() else 1.0


@pytest.fixture(scope="module")
def golden(shared_dir) -> Path:
    return shared_dir / "golden"


def models(golden: Path) -> list[object]:
    folder = golden / "models"
    return ["--segmenter", folder / "sam-tiny", "--phrases", folder / "en_ewt_np", "--tokenizer", folder / "llava-tiny"]


@pytest.mark.parametrize("heads", ["all-heads", "head-minus-2"])
def test_gcg_of_the_reference(golden, tmp_path, heads):
    where = ("--attn", golden / "segment/attn_pth" / heads, "--images", golden / "images", "--out", tmp_path)
    annotation = ("--ref-anno", golden / "segment/gcg_ref_anno.json")
    assert run("segment", "gcg", *where, *annotation, *models(golden))[0] == 0
    for name in ("dog", "truck"):
        ours = json.loads((tmp_path / f"{name}.json").read_text())
        theirs = json.loads((golden / f"segment/gcg/{heads}/{name}.json").read_text())
        for key in ("image_id", "caption", "phrases", "points"):
            assert ours[key] == theirs[key]
        assert min(map(iou, ours["pred_masks"], theirs["pred_masks"])) >= 0.999
        assert [ours["caption"][a:b] for a, b in ours["spans"]] == ours["phrases"]


@pytest.mark.parametrize("heads", ["all-heads", "head-minus-2"])
@pytest.mark.parametrize("masks", ["last-mask", "more-masks"])
def test_instances_of_the_reference(golden, tmp_path, heads, masks):
    where = ("--attn", golden / "segment/attn_pth" / heads, "--images", golden / "images", "--out", tmp_path)
    annotation = ("--ref-anno", golden / "segment/instance_ref_anno.json", "--category-thresh", 0.2)
    more = ["--more-masks"] if masks == "more-masks" else []
    code, _ = run("segment", "instance", *where, *annotation, *models(golden), *more)
    assert code == 0
    ours = json.loads((tmp_path / "results.json").read_text())
    theirs = json.loads((golden / f"segment/instance/{heads}/{masks}.json").read_text())
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for key in ("image_id", "category_id", "category_name", "noun_phrase", "point", "iscrowd"):
            assert one[key] == other[key], key
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert iou(one["segmentation"], other["segmentation"]) >= 0.999
        assert one["area"] == pytest.approx(other["area"], rel=1e-3)
    assert "oracle" in json.loads((tmp_path / "run.json").read_text())
    np.testing.assert_array_equal([d["id"] for d in ours], np.arange(1, len(ours) + 1))


def test_the_whole_way_of_the_reference(golden, tmp_path):
    """From the authors' checkpoint to their masks, through our own attention items.

    The attention is computed here: its last bits are another processor's than those of the authors' output, and where a
    map is flat about its peak they decide between two neighbouring pixels of a photograph 1,800 wide.
    """
    photos, model = golden / "images", golden / "models/llava-tiny"
    asked = ("--images", photos, "--model", model, "--max-new-tokens", 120)
    assert run("infer-attn", *asked, "--out", tmp_path / "attn")[0] == 0
    where = ("--attn", tmp_path / "attn", "--images", photos, "--out", tmp_path / "gcg")
    assert run("segment", "gcg", *where, *models(golden)[:4])[0] == 0
    for name in ("dog", "truck"):
        ours = json.loads((tmp_path / f"gcg/{name}.json").read_text())
        theirs = json.loads((golden / f"segment/gcg/all-heads/{name}.json").read_text())
        assert ours["phrases"] == theirs["phrases"]
        apart = np.abs(np.subtract(ours["points"], theirs["points"])).max(axis=1)
        assert apart.max() <= 1 and (apart == 0).mean() > 0.7
        ious = np.array(list(map(iou, ours["pred_masks"], theirs["pred_masks"])))
        assert ious[apart == 0].min() >= 0.999 and ious.min() >= 0.98


ANSWERS = {
    "run.png": "A dog sitting on a bench.",
    "sub/street.png": "Two people ride bicycles along the street.",
    "none.png": "Yes.",
    "tree.png": "A tree.",
}


@pytest.fixture(scope="module")
def attn(tmp_path_factory) -> Path:
    """Images, and attention of given answers by a tiny random LLaVA."""
    root = tmp_path_factory.mktemp("run")
    lmm = tiny.family("llava")
    tiny.saved(lmm, root / "model")
    for i, name in enumerate(ANSWERS):
        (root / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny.a_photo((60 + 10 * i, 90), seed=i)).save(root / "photos" / name)
    lines = [json.dumps({"image": name, "answer": answer}) for name, answer in ANSWERS.items()]
    (root / "answers.jsonl").write_text("\n".join(lines))
    run("infer-attn", "--images", root / "photos", "--model", root / "model", "--answers", root / "answers.jsonl",
        "--out", root / "attn")  # fmt: skip
    return root


def segmented(attn: Path, out: Path, *more: object, task: str = "gcg") -> tuple[int, str]:
    return run("segment", task, "--attn", attn / "attn", "--images", attn / "photos", "--out", out, *more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json") if path.name != "run.json"}


def test_every_image_has_a_result(attn, tmp_path):
    code, output = segmented(attn, tmp_path)
    assert code == 0 and "4 done" in output
    found = {item["image_id"]: item for item in map(json.loads, contents(tmp_path).values())}
    assert set(found) == {"run", "sub/street", "none", "tree"}
    assert found["none"]["phrases"] == found["none"]["pred_masks"] == []
    assert found["run"]["caption"] == ANSWERS["run.png"]
    assert found["run"]["phrases"] == ["A dog", "a bench"]
    for item in found.values():
        for phrase, (start, end), (x, y), mask in zip(
            item["phrases"], item["spans"], item["points"], item["pred_masks"], strict=True
        ):
            assert item["caption"][start:end] == phrase
            height, width = mask["size"]
            assert 0 <= x < width == 90 and 0 <= y < height
    assert (tmp_path / "%72un.json").exists(), "an image called run does not overwrite the run's own file"


def test_any_split_and_batch_gives_the_same_bytes(attn, tmp_path):
    assert segmented(attn, tmp_path / "whole")[0] == 0
    for chunk in (1, 0, 2):
        assert segmented(attn, tmp_path / "parts", "--num-chunks", 3, "--chunk-idx", chunk, "--workers", 1)[0] == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert segmented(attn, tmp_path / "singles", "--batch-size", 1)[0] == 0
    for name, content in contents(tmp_path / "singles").items():
        one, other = json.loads(content), json.loads(contents(tmp_path / "whole")[name])
        assert one["points"] == other["points"]
        assert all(iou(a, b) > 0.99 for a, b in zip(one["pred_masks"], other["pred_masks"], strict=True))


def test_one_failure_costs_nobody_else(attn, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(attn / "photos", photos)
    (photos / "tree.png").write_bytes(b"broken")
    out = tmp_path / "out"
    code, output = run("segment", "gcg", "--attn", attn / "attn", "--images", photos, "--out", out)
    assert code == 3 and "3 done" in output and "tree.png" in (out / "failed.jsonl").read_text()
    code, output = run("status", out)
    assert code == 0 and "3 of 4 done, 1 failed, 0 to do" in output
    assert segmented(attn, out)[0] == 0 and run("status", out)[1].count("4 of 4 done, 0 failed") == 1


def test_verify_finds_what_is_damaged(attn, tmp_path):
    assert segmented(attn, tmp_path)[0] == 0
    assert run("verify", tmp_path)[0] == 0 and run("verify", attn / "attn")[0] == 0
    path = tmp_path / "tree.json"
    item = json.loads(path.read_text())
    item["phrases"].append("one more")
    path.write_text(json.dumps(item))
    (tmp_path / "none.json").write_text("{")
    code, output = run("verify", tmp_path)
    assert code == 1 and "tree.json" in output and "none.json" in output and "2 damaged" in output
    assert run("verify", attn)[0] == 2


def annotation(attn: Path, path: Path) -> Path:
    """COCO: a dog and a bench in run.png, a person in the street, and an image that has no attention."""
    polygon = [[10, 10, 40, 10, 40, 40, 10, 40]]
    names = {1: "person", 2: "bicycle", 3: "dog", 4: "bench"}
    images = {7: "run.png", 30: "sub/street.png", 5: "gone.png"}
    content = {
        "images": [{"id": i, "file_name": name} for i, name in images.items()],
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "segmentation": polygon, "iscrowd": 0, "area": 900}
            for i, (image, category) in enumerate([(7, 3), (7, 4), (30, 1)])
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_instances_and_their_categories(attn, tmp_path):
    anno = annotation(attn, tmp_path / "anno.json")
    code, output = segmented(attn, tmp_path / "present", "--ref-anno", anno, task="instance")
    assert code == 3 and "gone.png" in output
    found = {p.name: json.loads(p.read_text()) for p in (tmp_path / "present").glob("[0-9]*.json")}
    assert set(found) == {"7.json", "30.json"}
    named = {(d["noun_phrase"], d["category_name"]) for d in found["7.json"]["detections"]}
    assert ("A dog", "dog") in named and ("a bench", "bench") in named
    assert run("merge", tmp_path / "present")[0] == 0
    merged = json.loads((tmp_path / "present/results.json").read_text())
    assert [d["image_id"] for d in merged] == sorted(d["image_id"] for d in merged)
    assert [d["id"] for d in merged] == list(range(1, len(merged) + 1))
    assert segmented(attn, tmp_path / "all", "--ref-anno", anno, "--categories", "all", task="instance")[0] == 3
    everything = json.loads((tmp_path / "all/30.json").read_text())["detections"]
    assert any(d["category_name"] == "bicycle" for d in everything), "present leaves out what is not annotated"
    (tmp_path / "names.txt").write_text("dog\n")
    more = ("--ref-anno", anno, "--categories", tmp_path / "names.txt", "--category-thresh", 0.9)
    assert segmented(attn, tmp_path / "file", *more, task="instance")[0] == 3
    assert {d["category_name"] for d in json.loads((tmp_path / "file/7.json").read_text())["detections"]} == {"dog"}


def test_instances_in_every_spelling_of_ids(attn, tmp_path):
    content = json.loads(annotation(attn, tmp_path / "anno.json").read_text())
    for entry in content["annotations"]:
        entry |= {"image_id": str(entry["image_id"]), "category_id": float(entry["category_id"])}
    content["categories"].append({"id": 9, "name": "dog"})
    (tmp_path / "text.json").write_text(json.dumps(content))
    for name in ("anno", "text"):
        segmented(attn, tmp_path / name, "--ref-anno", tmp_path / f"{name}.json", task="instance")
    for name in ("7.json", "30.json"):
        assert (tmp_path / "text" / name).read_bytes() == (tmp_path / "anno" / name).read_bytes()
    assert b"A dog" in (tmp_path / "text/7.json").read_bytes()


def test_pictures_of_masks(attn, tmp_path):
    anno = annotation(attn, tmp_path / "anno.json")
    segmented(attn, tmp_path / "run", "--ref-anno", anno, task="instance")
    code, output = run("show", "masks", tmp_path / "run", "--out", tmp_path / "pictures")
    assert code == 0 and "contact_sheet.png" in output
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"7.png", "30.png", "contact_sheet.png"}
    with_truth = Image.open(tmp_path / "pictures/7.png")
    segmented(attn, tmp_path / "gcg")
    code, _ = run("show", "masks", tmp_path / "gcg", "--out", tmp_path / "gcg-pictures", "--only", "run")
    assert code == 0 and Image.open(tmp_path / "gcg-pictures/run.png").width < with_truth.width
    assert run("show", "masks", attn / "attn", "--out", tmp_path)[0] == 2
    assert run("show", "masks", tmp_path / "gcg", "--out", tmp_path, "--only", "nobody")[0] == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--attn", "/nowhere"], "/nowhere"),
        (["--preset", "mine"], "'mine' is not one of 'paper'"),
        (["--mask-choice", "first"], "first"),
        (["--chunk-idx", 3], "--chunk-idx 3"),
        (["--ref-anno", __file__], "not valid JSON"),
        (["--segmenter", "no/such-sam"], "no/such-sam"),
        (["--phrases", "no_such_pipeline"], "no_such_pipeline"),
    ],
)
def test_a_usage_error_writes_nothing(attn, tmp_path, arguments, message):
    code, output = segmented(attn, tmp_path / "out", *arguments)
    assert code == 2 and message in output and not (tmp_path / "out").exists()


@pytest.mark.parametrize("choice", ["last", "best-score", "best-attention"])
def test_mask_choices(attn, tmp_path, choice):
    assert segmented(attn, tmp_path, "--mask-choice", choice)[0] == 0
    assert json.loads((tmp_path / "run.json").read_text())["arguments"]["mask_choice"] == choice


def test_the_mask_with_most_attention_inside():
    grid_map = np.zeros((4, 4), np.float32)
    grid_map[:2, :2] = 1
    view = View((4, 4), (-10.0, 0.0, 70.0, 60.0))  # 20 x 15 pixels a cell, half a cell beyond the left edge
    masks = np.zeros((3, 60, 60), bool)
    masks[0, :30, :30] = True  # exactly the two upper left cells and what is seen of them
    masks[1, :, :] = True
    masks[2, 30:, 30:] = True
    scores = np.array([0.1, 0.9, 0.5], np.float32)
    assert [choose(c, masks, scores, grid_map, view) for c in get_args(MaskChoice)] == [2, 1, 0]
    inside, outside = cells_of_mask(masks[0], view)
    np.testing.assert_allclose(inside[:2, :2], [[150, 300], [150, 300]])
    assert inside.sum() == 900 and inside.sum() + outside.sum() == 3600
    assert attention_contrast(masks[0], grid_map, view) == pytest.approx(1.0)
    assert attention_contrast(np.zeros((60, 60), bool), grid_map, view) == -np.inf


def test_words_drop_and_merge(attn, tmp_path):
    assert segmented(attn, tmp_path / "chunk", "--words", "chunk", "--merge", "max")[0] == 0
    assert segmented(attn, tmp_path / "root")[0] == 0
    chunk, root = (json.loads((tmp_path / f"{name}/%72un.json").read_text()) for name in ("chunk", "root"))
    assert chunk["phrases"] == root["phrases"]
    assert all(set(r) < set(c) for c, r in zip(chunk["token_indices"], root["token_indices"], strict=True))
    answers = tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"image": "tree.png", "answer": "The image shows a tree. It is in the background."}))
    run("infer-attn", "--images", attn / "photos", "--model", attn / "model", "--answers", answers, "--out",
        tmp_path / "attn")  # fmt: skip
    where = ("--attn", tmp_path / "attn", "--images", attn / "photos")
    assert run("segment", "gcg", *where, "--out", tmp_path / "all")[0] == 0
    assert run("segment", "gcg", *where, "--out", tmp_path / "few", "--drop", "pronouns", "--drop", "unseen")[0] == 0
    everything, few = (json.loads((tmp_path / f"{name}/tree.json").read_text()) for name in ("all", "few"))
    assert everything["phrases"] == ["The image", "a tree", "It", "the background"] and few["phrases"] == ["a tree"]


@pytest.mark.parametrize("prompt", [["--prompt", "mask"], ["--points", 3, "--negative-points", 2]])
def test_other_prompts(attn, tmp_path, prompt):
    """The masks differ from those of one point, the points told do not: they are the maps' peaks."""
    assert segmented(attn, tmp_path / "point")[0] == 0 and segmented(attn, tmp_path / "other", *prompt)[0] == 0
    one, other = (json.loads((tmp_path / f"{name}/%72un.json").read_text()) for name in ("point", "other"))
    assert one["points"] == other["points"] and one["pred_masks"] != other["pred_masks"]
    assert segmented(attn, tmp_path / "single", *prompt, "--batch-size", 1)[0] == 0
    single = json.loads((tmp_path / "single/%72un.json").read_text())
    assert all(iou(a, b) > 0.99 for a, b in zip(single["pred_masks"], other["pred_masks"], strict=True))


def test_masks_say_whether_they_cover_their_point(attn, tmp_path):
    assert segmented(attn, tmp_path)[0] == 0
    for item in map(json.loads, contents(tmp_path).values()):
        for (x, y), mask, covered in zip(item["points"], item["pred_masks"], item["covers_point"], strict=True):
            assert bool(coco_mask.decode(mask)[y, x]) == covered


def test_an_image_that_cannot_be_encoded_fails_alone(attn, tmp_path, monkeypatch):
    encode = SamFamily.encode

    def short_of_memory(self, images):
        if len(images) > 1 or images[0].shape[0] == 90:
            raise RuntimeError("out of memory")
        return encode(self, images)

    monkeypatch.setattr(SamFamily, "encode", short_of_memory)
    code, output = segmented(attn, tmp_path, "--batch-size", 4)
    assert code == 3 and "3 done, 0 were there, 1 failed" in output and "tree.png: RuntimeError" in output
