"""Ids, numbers, flags and sizes that JSON files spell in several ways: one value, and a word where there is none."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from aas import rle
from aas.cli import app
from aas.datasets.reasonseg import ReasonSeg
from aas.datasets.refcoco import RefCoco
from aas.datasets.sources import annotated_names
from aas.spellings import flag_of, id_of, number_of, whole_of
from aas.stages.segment_jobs import read_annotation
from tests.eval_sets import coco_figures


@pytest.mark.parametrize("value", [1, 1.0, "1", "1.0", " 1 ", "1."])
def test_one_in_every_spelling(value):
    assert id_of(value) == whole_of(value) == number_of(value) == 1 and flag_of(value) is True


def test_names_stay_names():
    for name in ("007", "a", "1.5", "1.0.0", "-0", "1e3", "١"):
        assert id_of(name) == name
    assert id_of(2**60) == 2**60 == id_of(str(2**60))
    assert [id_of(wrong) for wrong in (None, "", " ", True, 1.5, 2.0**60, float("nan"), [1])] == [None] * 8


def test_numbers_and_flags():
    assert [number_of(text) for text in ("0.9", "-3", ".5", "1e-3", "7.")] == [0.9, -3, 0.5, 1e-3, 7]
    wrong = (None, True, "", "0,9", "1_000", "nan", "inf", "1e999", float("nan"), 10**400, [1], "0x10", "٣")
    assert [number_of(value) for value in wrong] == [None] * len(wrong)
    assert [flag_of(value) for value in (0, 0.0, "0", "false", "False", "no", False)] == [False] * 7
    assert [flag_of(value) for value in (None, 2, "maybe", "", -1)] == [None] * 5
    assert whole_of(1.5) is whole_of("1.5") is whole_of(1e17) is None


# --------------------------------------------------------------------------------------------- aas eval instance


def box(x: int, y: int, width: int, height: int) -> list[list[int]]:
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def small_set() -> tuple[dict, list]:
    """Two images, three masks of two categories, one of them a crowd, and detections a little beside them."""
    boxes = [(1, 1, 0, (10, 10, 60, 60)), (1, 2, 1, (90, 20, 40, 50)), (2, 1, 0, (30, 30, 70, 50))]
    truth = {
        "images": [{"id": i, "height": 100, "width": 160} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, "iscrowd": crowd, "area": 900}
            | {"segmentation": box(*at)}
            for i, (image, category, crowd, at) in enumerate(boxes, start=1)
        ],
    }
    found = [
        {"image_id": image, "category_id": category, "score": 0.9 - i / 10, "segmentation": box(x + 2, y + 2, w, h)}
        for i, (image, category, _, (x, y, w, h)) in enumerate(boxes)
    ]
    found.insert(0, {"image_id": 1, "category_id": 1, "score": 0.05, "segmentation": box(100, 60, 9, 9)})
    for entry in found:
        mask = coco_mask.merge(coco_mask.frPyObjects(entry["segmentation"], 100, 160))
        entry["segmentation"] = {"size": [100, 160], "counts": mask["counts"].decode()}
    return truth, found


def evaluated(folder: Path, truth: dict, found: list) -> tuple[int, str, dict]:
    for name, content in (("gt.json", truth), ("dt.json", found)):
        (folder / name).write_text(json.dumps(content))
    where = ["--gt", str(folder / "gt.json"), "--results", str(folder / "dt.json"), "--json", str(folder / "o.json")]
    result = CliRunner().invoke(app, ["eval", "instance", *where, "--bootstrap", "0"])
    assert "Traceback" not in result.output and (result.exception is None or result.exit_code)
    return result.exit_code, result.output, json.loads((folder / "o.json").read_text()) if result.exit_code != 2 else {}


PLACES = ["images id height width", "categories id", "annotations id image_id category_id iscrowd area",
          "found image_id category_id score"]  # fmt: skip


@pytest.mark.parametrize("spelled", [float, str, lambda value: str(float(value))], ids=["1.0", '"1"', '"1.0"'])
@pytest.mark.parametrize("place", PLACES)
def test_figures_are_the_same_in_every_spelling(tmp_path, place, spelled):
    truth, found = small_set()
    expected = coco_figures(truth, found)
    name, *keys = place.split()
    changed, entries = copy.deepcopy(truth), copy.deepcopy(found)
    for entry in entries if name == "found" else changed[name]:
        entry |= {key: spelled(entry[key]) for key in keys}
    code, output, figures = evaluated(tmp_path, changed, entries)
    assert code == 0 and {key: figures[key] for key in expected} == pytest.approx(expected), output
    assert figures["counts"]["detections"] == 4 and "unreadable" not in output


def test_what_cannot_be_read_is_said(tmp_path):
    truth, found = small_set()
    truth["annotations"][1]["iscrowd"], truth["annotations"][2]["area"] = "perhaps", "large"
    found[1]["score"] = "high"
    code, output, figures = evaluated(tmp_path, truth, found)
    assert code == 3 and figures["counts"]["unreadable_values"] == 3
    for said in ("annotation 2: iscrowd is 'perhaps'", "annotation 3: area is 'large'", "detection 2: its score is"):
        assert said in output


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"category_id": 101}, "--gt has no category 101"),
        ({"image_id": 9}, "--gt has no image 9"),
        ({"segmentation": None, "bbox": [1, 1, 5, 5]}, "no segmentation, only a box"),
    ],
)
def test_the_reason_given_is_the_reason(tmp_path, change, reason):
    truth, found = small_set()
    wrong = [{key: value for key, value in (entry | change).items() if value is not None} for entry in found]
    code, output, _ = evaluated(tmp_path, truth, wrong)
    assert code == 2 and reason in output


def test_masks_in_every_spelling():
    whole = rle.compressed({"size": [4, 5], "counts": [7, 3, 10]}, (0, 0))
    assert rle.compressed({"size": ["4", 5.0], "counts": ["7", 3.0, 10]}, (0, 0)) == whole
    assert rle.compressed([["1", 1.0, "30", 1, 30, 30.0]], (40, 40)) == rle.compressed(
        [[1, 1, 30, 1, 30, 30]], (40, 40)
    )


@pytest.mark.parametrize("stray", [[[20.0, 20.0]], [[15, 5, 15, 30]], [[]], [[3, 3], [9, 9, 20, 30]]])
def test_stray_points_draw_nothing(stray):
    good = [[5, 5, 30, 5, 30, 30]]
    expected = rle.compressed(good, (40, 40))
    assert rle.compressed(good + stray, (40, 40)) == rle.compressed(stray + good, (40, 40)) == expected
    with pytest.raises(ValueError, match="three points"):
        rle.compressed(stray, (40, 40))


# ----------------------------------------------------------------------------------------------- the other readers


def annotation(path: Path, **changes: object) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8}],
        "categories": [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}, {"id": 901, "name": "dog"}],
        "annotations": [{"image_id": 7, "category_id": 18}, {"image_id": 8, "category_id": 17}],
    }
    path.write_text(json.dumps(content | changes))
    return path


@pytest.mark.parametrize("spelled", [int, float, str])
def test_categories_of_an_image(tmp_path, spelled):
    entries = [
        {"image_id": spelled(7), "category_id": spelled(18)},
        {"image_id": spelled(8), "category_id": spelled(17)},
    ]
    read = read_annotation(annotation(tmp_path / "a.json", annotations=entries))
    assert read.present == {"7": {"18"}, "8": {"17"}}
    assert read.categories == [(17, "cat"), (18, "dog"), (901, "dog")], "two of one name stay two"
    assert annotated_names(annotation(tmp_path / "b.json", images=[{"id": spelled(8)}])) == ["8.jpg"]


def test_entries_without_an_id_or_a_name_are_said(tmp_path, caplog):
    where = annotation(
        tmp_path / "a.json",
        annotations=[{"category_id": 18}, {"image_id": 8, "category_id": 17}],
        categories=[{"id": 17}, {"id": 18, "name": "dog"}],
    )
    read = read_annotation(where)
    assert read.present == {"8": {"17"}} and read.categories == [(18, "dog")]
    assert "1 annotations without an image's or a category's id" in caplog.text
    assert "1 categories without an id or a name" in caplog.text
    with pytest.raises(ValueError, match="no id"):
        read_annotation(annotation(where, images=[{"file_name": "a.jpg"}]))


def references(folder: Path, content: list, **instances: object) -> Path:
    images = [{"id": 1, "height": 40, "width": 40, "file_name": "1.jpg"}]
    shapes = [{"id": i, "image_id": 1, "segmentation": box(2, i, 9, 9)} for i in (11, 12)]
    (folder / "instances.json").write_text(json.dumps({"images": images, "annotations": shapes} | instances))
    (folder / "refs(unc).p").write_bytes(pickle.dumps(content, 2))
    return folder


def sentence(ann_id: object, *said: str) -> dict:
    sentences = [{"sent_id": i, "sent": text} for i, text in enumerate(said or ("left",))]
    return {"ref_id": 5, "ann_id": ann_id, "image_id": 1, "split": "val", "sentences": sentences}


@pytest.mark.parametrize(
    "ann_id, rows", [("11", [11]), (11.0, [11]), ([11], [11]), ([11, "12"], [11, 12]), ([-1], []), ([], [])]
)
def test_references_name_any_number_of_annotations(tmp_path, ann_id, rows):
    expected = np.zeros((40, 40), bool)
    for y in rows:
        expected[y : y + 9, 2:11] = True
    for name in ("refs(unc).p", "grefs(unc).json"):
        folder = references(tmp_path, [sentence(ann_id)])
        if name.endswith("json"):
            (folder / "refs(unc).p").unlink()
            (folder / name).write_text(json.dumps([sentence(ann_id)]))
        found = RefCoco(refs=folder).read()
        assert [one.id for one in found.items] == ["5_0"] and not found.problems
        assert (rle.decoded(found.items[0].read_targets()[0].mask) == expected).all()


def test_a_sentence_without_words_costs_no_other(tmp_path):
    found = RefCoco(refs=references(tmp_path, [sentence(11, " ", "fine words")])).read()
    assert [one.text for one in found.items] == ["fine words"]
    assert found.problems == ["reference 5: sentence 0 is empty"]


@pytest.mark.parametrize(
    "said, is_question", [(False, False), ("false", False), (0, False), ("True", True), (1.0, True)]
)
def test_whether_a_text_is_a_sentence(tmp_path, said, is_question):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.jpg")
    shapes = [{"label": "target", "points": [[1, 1], [5, 1], [5, 5]]}]
    (tmp_path / "a.json").write_text(json.dumps({"text": ["a"], "shapes": shapes, "is_sentence": said}))
    assert [one.is_question for one in ReasonSeg(data=tmp_path).read().items] == [is_question]
    (tmp_path / "a.json").write_text(json.dumps({"text": ["a"], "shapes": shapes, "is_sentence": "so"}))
    with pytest.raises(ValueError):
        ReasonSeg(data=tmp_path).read()
