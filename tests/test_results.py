"""Results as JSON: they come back as they were written, and what is damaged is one line that names the file."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aas import rle
from aas.cli import app
from aas.records import Phrase, Prompt
from aas.stages.segment_results import SegmentResult
from aas.store.instances import Detection, InstanceResult, read_instances, write_instances
from aas.store.merge import merge
from aas.store.results import (
    OURS,
    Result,
    ResultError,
    labelled_points,
    read_result,
    result_json,
    result_of,
    write_result,
)
from aas.store.runs import RunFolder
from aas.store.status import verify

SIZE_HW = (330, 410)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def a_mask(top: int = 20, left: int = 30) -> rle.Rle:
    mask = np.zeros(SIZE_HW, bool)
    mask[top : top + 50, left : left + 60] = True
    return rle.of_mask(mask)


@st.composite
def results(draw) -> Result:
    caption = draw(WORDS)
    n = draw(st.integers(0, 3))

    def column(entry, optional=True):
        columns = st.lists(entry, min_size=n, max_size=n).map(tuple)
        return draw(st.none() | columns if optional else columns)

    pixels = st.tuples(st.integers(0, 409), st.integers(0, 329))
    points = st.lists(st.tuples(st.integers(0, 409), st.integers(0, 329), st.integers(0, 1)), max_size=3).map(tuple)
    spans = st.tuples(*[st.integers(0, len(caption))] * 2).map(sorted).map(tuple)
    return Result(
        draw(WORDS | st.integers(0, 10**9)),
        caption,
        column(WORDS, optional=False),
        column(st.builds(a_mask, st.integers(0, 200), st.integers(0, 300)), optional=False),
        draw(WORDS),
        draw(st.none() | WORDS),
        column(pixels),
        column(points),
        column(NUMBERS),
        column(spans),
        column(st.lists(st.integers(0, 99), max_size=4).map(tuple)),
        column(st.booleans()),
        draw(st.none() | st.lists(WORDS, max_size=2).map(tuple)),
        column(st.floats(0, 1)),
        column(st.floats(0, 1)),
        draw(st.none() | st.sampled_from(["calibrated", "uncalibrated", "token"])),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(result=results())
def test_a_result_comes_back(tmp_path, result):
    write_result(tmp_path / "a.json", result)
    assert read_result(tmp_path / "a.json") == result


def a_result() -> Result:
    phrases = [Phrase("A dog", (0, 5), (2, 5), (1,)), Phrase("a bench", (9, 16), (11, 16), (3, 4))]
    shown = (((40, 30, 1), (60, 40, 1), (1, 2, 0)), ())
    about = {"image_id": "x", "caption": "A dog on a bench", "question": "What?"}
    return result_of(phrases, [a_mask(), a_mask(100)], [(40, 30), (5, 5)], [0.5, 0.12345678], shown, **about)


def test_the_file_of_a_result(tmp_path):
    """Keys in the order that `aas segment gcg` always had; nothing is rounded."""
    write_result(tmp_path / "a.json", a_result())
    text = (tmp_path / "a.json").read_text()
    content = {
        "image_id": "x",
        "question": "What?",
        "caption": "A dog on a bench",
        "phrases": ["A dog", "a bench"],
        "pred_masks": [a_mask(), a_mask(100)],
        "points": [[40, 30], [5, 5]],
        "prompt_points": [[[40, 30, 1], [60, 40, 1], [1, 2, 0]], []],
        "scores": [0.5, 0.12345678],
        "spans": [[0, 5], [9, 16]],
        "token_indices": [[1], [3, 4]],
        "covers_point": [True, False],
    }
    assert text == json.dumps(content) + "\n" and result_json(a_result()) == content


def test_points_of_files_that_do_not_say_them(tmp_path):
    content = result_json(a_result())
    del content["prompt_points"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_result(tmp_path / "a.json").points_shown == (((40, 30, 1),), ((5, 5, 1),))
    assert a_result().points_shown == a_result().prompt_points
    prompt = Prompt(np.array([[40, 30], [1, 2]], np.float32), np.array([1, 0]))
    assert labelled_points(prompt) == ((40, 30, 1), (1, 2, 0))
    assert labelled_points(Prompt(box_xyxy=np.zeros(4, np.float32))) == ()


@pytest.mark.parametrize("wrapped", [False, True])
def test_files_of_other_programs(tmp_path, wrapped):
    """GLaMM's have no points, scores and spans, and may be wrapped; runs may be numbers."""
    runs = {"size": list(SIZE_HW), "counts": rle.runs(a_mask()).tolist()}
    content = {"image_id": 7, "caption": "a dog", "phrases": ["a dog"], "pred_masks": [runs]}
    (tmp_path / "a.json").write_text(json.dumps({"7.jpg": content} if wrapped else content))
    assert read_result(tmp_path / "a.json") == Result(7, "a dog", ("a dog",), (a_mask(),))
    with pytest.raises(ResultError, match=r"a\.json: .*no points"):
        read_result(tmp_path / "a.json", needs=OURS)


CUT_OFF = {"size": list(SIZE_HW), "counts": a_mask()["counts"][:4]}
DAMAGES = {  # key -> what another value is called
    "pred_masks": [
        ([a_mask(), CUT_OFF], "pred_masks 2: a mask's runs"),
        ([a_mask(), {"size": list(SIZE_HW), "counts": [40, 7]}], "cover 47 of 330×410"),
        ([a_mask(), a_mask() | {"size": [1_000_000, 1_000_000]}], "pred_masks 2: a mask's size"),
        ([a_mask(), a_mask() | {"size": [330, -410]}], "a mask's size"),
        ([a_mask(), a_mask() | {"size": None}], "a mask's size"),
        ([a_mask(), {"size": list(SIZE_HW), "counts": None}], "no text of COCO's kind"),
        ([a_mask(), {"size": list(SIZE_HW), "counts": [[3]]}], "not all whole numbers"),
        ([a_mask(), {"size": list(SIZE_HW), "counts": [10**30]}], "not all whole numbers"),
        ([a_mask(), None], "neither polygons nor run lengths"),
        ([a_mask(), [[0, 0, 9, 0, 9, 9]]], "not said"),
        ([a_mask(), rle.empty((3, 3))], "differ in size"),
        ([a_mask()], r"not equally many phrases \(2\), pred_masks \(1\)"),
        ({"a": 1}, "not a list of pred_masks"),
    ],
    "points": [([[1, 2], [1, 2, 3]], "points 2"), ([[1, 2], [1, float("nan")]], "points 2"), ([1, 2], "points 1")],
    "prompt_points": [([[], [[1, 2, 7]]], "prompt_points 2"), ([[], [[1, 2]]], "prompt_points 2")],
    "scores": [([0.5, float("inf")], "scores 2"), ([0.5, "1"], "scores 2"), ([0.5, 10**400], "scores 2")],
    "spans": [([[0, 5], [9, 17]], "behind the caption"), ([[0, 5], [-3, 2]], "spans 2"), ([[0, 5], [3, 2]], "spans 2")],
    "phrases": [([1, "a bench"], "phrases 1: 1 is not text")],
    "token_indices": [([[1], [-1]], "token_indices 2")],
    "covers_point": [([True, 1], "covers_point 2")],
    "caption": [(None, "caption"), (5, "caption")],
    "image_id": [(None, "image_id"), (True, "image_id"), (1.5, "image_id")],
    "question": [([], "question")],
    "confidences": [([0.5, 1.5], "confidences 2: 1.5 is not a number from 0 to 1"), ([0.5], "not equally many")],
    "token_probabilities": [([0.5, "much"], "token_probabilities 2")],
    "confidence_kind": [("sure", "confidence_kind: 'sure' is not one of calibrated")],
    "left_out": [("it", "not a list of left_out"), ([3], "left_out 1")],
}


@pytest.mark.parametrize(
    "key, value, message", [(key, *damage) for key, damages in DAMAGES.items() for damage in damages]
)
def test_damage_is_one_line_with_the_files_name(tmp_path, key, value, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(result_json(a_result()) | {key: value}))
    with pytest.raises(ResultError, match=message) as found:
        read_result(path)
    line = str(found.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 300 + len(str(path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": {}}', b"null"])
@pytest.mark.parametrize("read", [read_result, read_instances])
def test_what_is_no_result_at_all(tmp_path, content, read):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"a\.json: "):
        read(tmp_path / "a.json")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.lists(st.integers(-5, 2**40), max_size=3), counts=st.text(max_size=20) | st.lists(st.integers()))
def test_no_mask_ends_the_process(tmp_path, size, counts):
    """Whatever the runs are, what is read fills its size, and pycocotools can count its pixels."""
    content = result_json(a_result()) | {"pred_masks": [{"size": size, "counts": counts}] * 2}
    (tmp_path / "a.json").write_text(json.dumps(content))
    try:
        result = read_result(tmp_path / "a.json")
    except ResultError:
        return
    assert rle.area(result.pred_masks[0]) <= size[0] * size[1]


def some_instances(image_id: str | int = 7) -> InstanceResult:
    dog = Detection(image_id, 18, "dog", "A dog", a_mask(), 0.75, 3000, (40, 30))
    bench = Detection(image_id, 15, "bench", "a bench", a_mask(), 1, 3000, (5, 5))
    return InstanceResult(image_id, "A dog on a bench", (dog, bench))


def test_instances_come_back(tmp_path):
    write_instances(tmp_path / "7.json", some_instances())
    assert read_instances(tmp_path / "7.json") == some_instances()
    content = json.loads((tmp_path / "7.json").read_text())
    assert list(content) == ["image_id", "caption", "detections"]
    assert list(content["detections"][0]) == [
        "image_id", "category_id", "category_name", "noun_phrase", "segmentation", "score", "iscrowd", "area", "point"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("segmentation", CUT_OFF, "detection 2: segmentation: a mask's runs"),
        ("segmentation", rle.empty((3, 3)), "differ in size"),
        ("score", float("nan"), "detection 2: score"),
        ("point", [1], "detection 2: point"),
        ("area", -1, "detection 2: area"),
        ("image_id", 8, "another image"),
        ("category_name", None, "detection 2: category_name"),
    ],
)
def test_damaged_instances(tmp_path, key, value, message):
    path = tmp_path / "7.json"
    write_instances(path, some_instances())
    content = json.loads(path.read_text())
    content["detections"][1][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=message) as found:
        read_instances(path)
    assert str(found.value).startswith(f"{path}: ")


def run_json(folder: Path, command: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"command": command, "arguments": {}, "n_images": 3}))
    return folder


def test_merging_goes_by_the_images_ids(tmp_path):
    run_json(tmp_path, "segment instance")
    for image_id in (30, 7):
        write_instances(tmp_path / f"{image_id}.json", some_instances(image_id))
    merged = json.loads(merge(tmp_path).read_text())
    assert [(one["id"], one["image_id"]) for one in merged] == [(1, 7), (2, 7), (3, 30), (4, 30)]
    assert list(merged[0])[:2] == ["id", "image_id"]
    (tmp_path / "9.json").write_text("{")
    result = CliRunner().invoke(app, ["merge", str(tmp_path)])
    assert result.exit_code == 2 and "9.json" in result.output and len(result.output.splitlines()) == 1


@pytest.mark.parametrize("command", ["segment gcg", "segment expressions", "segment instance"])
def test_verify_names_every_damaged_file_once(tmp_path, command):
    run_json(tmp_path, command)
    if command == "segment instance":
        write_instances(tmp_path / "whole.json", some_instances())
        damaged = json.loads((tmp_path / "whole.json").read_text())
        damaged["detections"][0]["segmentation"] = CUT_OFF
    else:
        write_result(tmp_path / "whole.json", a_result())
        damaged = result_json(a_result()) | {"pred_masks": [CUT_OFF] * 2}
    (tmp_path / "cut.json").write_text(json.dumps(damaged))
    (tmp_path / "huge.json").write_text(json.dumps(damaged).replace("[330, 410]", "[1000000, 1000000]"))
    os.mkfifo(tmp_path / "pipe.json")  # to read from it would wait for ever
    assert list(RunFolder(tmp_path, ".json").items()) == ["cut", "huge", "whole"]
    lines = verify(tmp_path)
    assert [line.split(": ")[0] for line in lines] == [str(tmp_path / "cut.json"), str(tmp_path / "huge.json")]
    assert all(line.count(".json") == 1 for line in lines)


def test_damaged_masks_end_no_pictures(tmp_path):
    """`aas show masks` names the file and draws the others; it used to die in pycocotools."""
    from PIL import Image

    run_json(tmp_path / "run", "segment gcg")
    (tmp_path / "photos").mkdir()
    for name in ("a[1]", "b"):
        Image.new("RGB", SIZE_HW[::-1], "grey").save(tmp_path / f"photos/{name}.png")
        write_result(tmp_path / f"run/{name}.json", a_result())
    damaged = result_json(a_result()) | {"pred_masks": [a_mask() | {"size": [10**6, 10**6]}] * 2}
    (tmp_path / "run/b.json").write_text(json.dumps(damaged))
    where = ["--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["show", "masks", str(tmp_path / "run"), *where])
    assert result.exit_code == 3 and "b.json" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a[1].png"]


def test_what_segment_writes(tmp_path):
    """The same result, by way of packed bits; empty instances are left out."""
    masks = np.zeros((2, *SIZE_HW), bool)
    masks[0, 20:70, 30:90] = True
    result = a_result()
    columns = zip(result.phrases, result.spans, result.token_indices, strict=True)
    phrases = [Phrase(text, span, (0, 0), tokens) for text, span, tokens in columns]
    packed = [rle.packed(masks[:1]), rle.packed(masks[1:])]
    categories = [(18, "dog"), (15, "bench")]
    for task, name in (("gcg", "g.json"), ("instance", "i.json")):
        SegmentResult(
            task, tmp_path / name, "x", None, result.caption, "What?", SIZE_HW, phrases, list(result.points_xy),
            categories, packed, [[0.5], [0.25]],
        ).write()  # fmt: skip
    found = read_result(tmp_path / "g.json", needs=OURS)
    assert found.pred_masks == (a_mask(), rle.empty(SIZE_HW)) and found.covers_point == (True, False)
    assert found.prompt_points is None and found.scores == (0.5, 0.25)
    (dog,) = read_instances(tmp_path / "i.json").detections
    assert dog == Detection("x", 18, "dog", "A dog", a_mask(), 0.5, 3000, (40, 30))
