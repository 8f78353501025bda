"""Corrected masks back: export, import, the same masks; and a corrected run can be evaluated and exported again."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from aas import registry, rle
from aas.cli import app
from aas.export.from_labelme import drawn
from aas.export.importing import spans
from aas.export.photograph import Found
from aas.metrics import captions
from aas.store.results import OURS, Result, read_result
from aas.store.runs import RunFolder
from aas.store.status import verify
from tests.eval_sets import write_text_encoder
from tests.export_runs import HW, INNER, PARTS, RING, box, iou, truth_of, write_coco_run, write_run


def aas(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result.output


def results_of(run: Path) -> dict[str, Result]:
    return {key: read_result(path, needs=OURS) for key, path in RunFolder(run, ".json").items().items()}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def labelme(scenes) -> Path:
    aas("export", "labelme", scenes, "--out", scenes.parent / "labelme")
    return scenes.parent / "labelme"


@pytest.mark.parametrize("name", registry.IMPORTS)
def test_what_was_exported_comes_back(name, scenes, tmp_path):
    """Masks to the pixel, phrases, spans, captions and questions as they were, hostile words included."""
    aas("export", name, scenes, "--out", tmp_path / name)
    aas("import", name, tmp_path / name, "--out", tmp_path / "back")
    before, after = results_of(scenes), results_of(tmp_path / "back")
    assert before.keys() == after.keys() and verify(tmp_path / "back") == []
    for key, there in before.items():
        back, kept = after[key], [i for i, mask in enumerate(there.pred_masks) if rle.area(mask)]
        for column in ("phrases", "pred_masks", "spans", "scores"):
            assert getattr(back, column) == tuple(getattr(there, column)[i] for i in kept), column
        assert (back.caption, back.question) == (there.caption, there.question)
        assert all(back.covers_point or ()) and (tmp_path / "back" / (back.image or "")).is_file()
        if name != "labelstudio":  # which has no place for points
            assert back.points_xy == tuple((there.points_xy or ())[i] for i in kept)


@pytest.mark.parametrize("name", registry.IMPORTS)
def test_masks_of_photographs_come_back(name, tmp_path, shared_dir):
    """IoU 1 on COCO's own masks, by way of each format that people correct masks in."""
    run = write_coco_run(tmp_path, shared_dir, 4)
    aas("export", name, run, "--out", tmp_path / "out")
    aas("import", name, tmp_path / "out", "--out", tmp_path / "back")
    before, after = truth_of(run), truth_of(tmp_path / "back")
    assert before.keys() == after.keys() and sum(map(len, after.values())) > 10
    for key, words in before.items():
        assert [iou(mask, back) for (_, mask), (_, back) in zip(words, after[key], strict=True)] == [1] * len(words)


# ---- after an import ---------------------------------------------------------------------------------


def test_a_corrected_run_is_evaluated(scenes, labelme, tmp_path, monkeypatch):
    """Somebody corrects a mask in LabelMe: as a prediction it is measured, as truth it measures the model's."""
    monkeypatch.setattr(captions, "java_works", lambda: False)
    corrected = tmp_path / "labelme"
    corrected.mkdir()
    for path in labelme.glob("*.*"):
        (corrected / path.name).write_bytes(path.read_bytes())
    content = json.loads((corrected / "plain.json").read_text())
    whole = {"label": "ring", "shape_type": "rectangle", "points": [[10, 10], [99, 59]], "description": "A ring"}
    content["shapes"] = [whole, *(one for one in content["shapes"] if one["label"] != "ring")]
    (corrected / "plain.json").write_text(json.dumps(content))
    aas("import", "labelme", corrected, "--out", tmp_path / "run")
    assert (truth_of(tmp_path / "run")["plain"][0][1] == box(10, 10, 100, 60)).all()
    aas("export", "coco", tmp_path / "run", "--out", tmp_path / "truth", "--name-ids")
    truth = ["--gt-caption", tmp_path / "truth/captions.json", "--gt-mask", tmp_path / "truth/annotations.json"]
    encoder = ["--text-encoder", write_text_encoder(tmp_path / "bert"), "--bootstrap", 0, "--protocol", "strict"]
    figures = {}
    for name, results in (("corrected", tmp_path / "run"), ("model", scenes)):
        aas("eval", "gcg", "--results", results, *truth, *encoder, "--json", tmp_path / f"{name}.json")
        figures[name] = json.loads((tmp_path / f"{name}.json").read_text())
    assert figures["corrected"]["strict"]["mIoU"] == 1
    lost = 1 - iou(RING, box(10, 10, 100, 60))  # of one of three masks, on one of three photographs that have some
    assert figures["model"]["strict"]["mIoU"] == pytest.approx(1 - lost / 3 / 3)


def test_a_coco_export_is_truth_for_instances(scenes, tmp_path):
    aas("export", "coco", scenes, "--out", tmp_path / "truth")
    content = json.loads((tmp_path / "truth/annotations.json").read_text())
    results = [one | {"score": 0.5} for one in content["annotations"]]
    (tmp_path / "results.json").write_text(json.dumps(results))
    where = ["--results", tmp_path / "results.json", "--gt", tmp_path / "truth/annotations.json"]
    aas("eval", "instance", *where, "--bootstrap", 0, "--json", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["AP"] == 1


def test_an_imported_run_is_shown_and_counted(labelme, tmp_path):
    aas("import", "labelme", labelme, "--out", tmp_path / "run")
    assert "4 of 4 done" in aas("status", tmp_path / "run") and "0 damaged" in aas("verify", tmp_path / "run")
    aas("show", "masks", tmp_path / "run", "--out", tmp_path / "pictures", "--only", "plain")
    assert (tmp_path / "pictures/plain.png").is_file()


# ---- what tools make of it ---------------------------------------------------------------------------


def test_coco_of_another_tool(scenes, tmp_path):
    """It has lost our keys and its images have other numbers; polygons are COCO's. The run gives captions back."""
    corners = [10, 10, 50, 10, 50, 60, 10, 60]
    content = {
        "images": [{"id": 77, "file_name": "plain.jpg", "height": HW[0], "width": HW[1]}],
        "categories": [{"id": 5, "name": "ring"}],
        "annotations": [{"id": 1, "image_id": 77, "category_id": 5, "segmentation": [corners]},
                        {"id": 2, "image_id": 78, "category_id": 5, "segmentation": [corners]}],
    }  # fmt: skip
    (tmp_path / "theirs.json").write_text(json.dumps(content))
    photos = scenes.parent / "photos"
    said = aas(
        "import", "coco", tmp_path / "theirs.json", "--images", photos, "--run", scenes, "--out", tmp_path / "run"
    )
    assert "1 annotations are of images that the file does not list" in said
    (found,) = results_of(tmp_path / "run").values()
    assert found.image_id == "plain" and found.phrases == ("ring",) and found.scores == (1.0,)
    assert found.caption.startswith("A ring and") and found.spans == ((2, 6),) and found.question == "What is it?"
    assert (rle.decoded(found.pred_masks[0]) == box(10, 10, 50, 60)).all()


def test_every_shape_of_labelme(tmp_path):
    """Drawn as LabelMe does it (held against it where it is installed); what has no area is left out, and said."""
    content = io.BytesIO()
    Image.fromarray(INNER[24:46, 24:36]).save(content, format="PNG")
    png = base64.b64encode(content.getvalue()).decode()
    points = {
        "rectangle": [[30, 40], [10, 20]],
        "circle": [[60, 40], [60, 55]],
        "polygon": [[70.4, 5.2], [90, 10], [80.5, 30]],
        "mask": [[24, 24], [35, 45]],
        "line": [[1, 1], [5, 5]],
    }
    shapes = [{"label": kind, "shape_type": kind, "points": of, "mask": png} for kind, of in points.items()]
    about = {"imagePath": "gone.jpg", "imageHeight": HW[0], "imageWidth": HW[1]}
    (tmp_path / "one.json").write_text(json.dumps({"shapes": shapes, **about}))
    said = aas("import", "labelme", tmp_path / "one.json", "--out", tmp_path / "run")
    assert "a line has no area" in said
    found = results_of(tmp_path / "run")["one"]
    assert found.phrases == ("rectangle", "circle", "polygon", "mask") and found.image is None
    masks = dict(zip(found.phrases, map(rle.decoded, found.pred_masks), strict=True))
    assert (masks["rectangle"] == box(10, 20, 31, 41)).all() and (masks["mask"] == INNER).all()
    y, x = np.mgrid[: HW[0], : HW[1]]
    assert iou(masks["circle"], (x - 60) ** 2 + (y - 40) ** 2 <= 15.5**2) > 0.98


@pytest.mark.parametrize("kind", ["rectangle", "circle", "polygon"])
def test_shapes_are_labelmes(kind, monkeypatch):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    utils = pytest.importorskip("labelme.utils", reason="labelme needs Qt", exc_type=ImportError)
    rng = np.random.default_rng(0)
    for _ in range(30):
        points = (rng.random((2 if kind != "polygon" else 7, 2)) * HW[::-1]).tolist()
        ours = drawn(kind, tuple(map(tuple, points)), None, HW)
        assert (ours == utils.shape_to_mask(HW, points, kind)).all()


def test_label_studios_annotations(scenes, tmp_path):
    """The last that was not cancelled counts; a task without one keeps its prediction; other regions are named."""
    aas("export", "labelstudio", scenes, "--out", tmp_path / "out")
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    plain = next(one for one in tasks if one["data"]["name"] == "plain")
    ring, boxes, inner = plain["predictions"][0]["result"]
    new = inner | {"id": "x"}
    del new["meta"], new["score"]
    polygon = {"type": "polygonlabels", "value": {"points": [[1, 1], [2, 2], [3, 1]]}}
    plain["annotations"] = [
        {"result": [ring]},
        {"result": [boxes, new, polygon]},
        {"result": [ring, boxes], "was_cancelled": True},
    ]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    images = tmp_path / "out/images"
    said = aas("import", "labelstudio", tmp_path / "project.json", "--images", images, "--out", tmp_path / "run")
    assert "plain.jpg: 1 regions are no brush strokes" in said
    found = results_of(tmp_path / "run")
    assert found["plain"].phrases == ("two boxes", "inner box") and found["plain"].scores == (0.5625, 1.0)
    assert (rle.decoded(found["plain"].pred_masks[0]) == PARTS).all() and len(found["turned"].phrases) == 1


def test_places_of_phrases_in_the_caption():
    """A span that was kept counts; phrases with the same words have one place after the other; (0, 0) is nowhere."""
    mask = rle.of_mask(RING)
    words = [("a dog", None), ("A dog", (12, 17)), ("a dog", None), ("a cat", None), ("a dog", (90, 95)), ("", None)]
    found = [Found(phrase, "dog", mask, span=span) for phrase, span in words]
    assert spans("a dog, and a dog", found) == [(0, 5), (0, 0), (11, 16), (0, 0), (0, 0), (0, 0)]


# ---- what is damaged ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage, message",
    [
        ({"shapes": None}, "no list `shapes`"),
        ({"imageHeight": None}, "height and width"),
        ({"shapes": [{"label": 3, "points": [[0, 0], [1, 1], [0, 1]]}]}, "class: 3 is not text"),
        ({"shapes": [{"label": "a", "points": [[0, 0], [1, "x"]]}]}, "points"),
        ({"shapes": [{"label": "a", "shape_type": "star", "points": []}]}, "'star'"),
        ({"shapes": [{"label": "a", "shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "?"}]}, "no PNG"),
        ({"shapes": [{"label": "a", "points": [[0, 0], [1, 1], [0, 1]], "span": [3, 1]}]}, "span"),
        ({"shapes": ["a"]}, "no attribute"),
        ({"caption": 7}, "caption"),
        ({"name": "turned"}, "is called 'turned' too"),
    ],
)
def test_one_damaged_file_costs_only_itself(labelme, tmp_path, damage, message):
    for path in labelme.glob("*.json"):
        content = json.loads(path.read_text())
        (tmp_path / path.name).write_text(json.dumps(content | (damage if path.name == "zzz.json" else {})))
    content = json.loads((tmp_path / "plain.json").read_text()) | {"name": "zzz"} | damage
    (tmp_path / "zzz.json").write_text(json.dumps(content))
    said = aas("import", "labelme", tmp_path, "--out", tmp_path / "run", code=3)
    assert len(results_of(tmp_path / "run")) == 4
    (line,) = (tmp_path / "run/failed.jsonl").read_text().splitlines()
    assert json.loads(line)["image"] == "zzz.json" and message in json.loads(line)["error"] and "Traceback" not in said


@pytest.mark.parametrize("name", registry.IMPORTS)
@pytest.mark.parametrize("content", ["{", "[]", "3", '{"images": 3}', "[[]]"])
def test_what_is_no_file_of_the_format(name, content, tmp_path):
    (tmp_path / "a.json").write_text(content)
    said = aas("import", name, tmp_path / "a.json", "--out", tmp_path / "run", code=3 if name == "labelme" else 2)
    assert "a.json" in said and not list((tmp_path / "run").glob("a.json"))
