"""`aas eval instance` and `compare`: pycocotools is the judge."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from typer.testing import CliRunner

from aas.cli import app
from aas.evaluations.instance import EvalInstance, evaluate
from aas.metrics import bootstrap
from tests.eval_sets import FIGURES, HEIGHT, WIDTH, coco_figures, encoded, near, random_mask


def scene(seed: int, n_images: int = 8) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth of three categories with crowds and polygons, and detections with equal scores."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i), "height": HEIGHT, "width": WIDTH} for i in rng.permutation(100)[:n_images]]
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in images:
        for _ in range(rng.integers(1, 6)):
            mask, category = random_mask(rng), int(rng.integers(1, 4))
            where = {"image_id": image["id"], "category_id": category}
            shape: Any = encoded(mask)
            if rng.random() < 0.5:
                x, y = rng.integers(0, 20, 2).tolist()
                shape = [[x, y, x + 25.5, y, x + 20, y + 15]]
                mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(shape, HEIGHT, WIDTH))).astype(bool)
            is_crowd = int(rng.random() < 0.2)
            entry = {"id": len(annotations) + 1, "area": float(mask.sum()), "iscrowd": is_crowd}
            annotations.append(where | entry | {"segmentation": shape})
            for _ in range(rng.integers(0, 3)):
                point = [int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT))]
                score = float(rng.integers(1, 5)) / 5
                detections.append(where | {"segmentation": encoded(near(mask, rng)), "score": score, "point": point})
    categories = [{"id": i, "name": f"thing {i}"} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}, detections


def written(folder: Path, truth: Any, detections: Any) -> EvalInstance:
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(detections))
    return EvalInstance(results=folder / "dt.json", gt=folder / "gt.json", n_resamples=0)


@pytest.mark.parametrize("change", ["", "ids from 0", "one id twice", "boxes", "area of none"])
def test_figures_are_those_of_pycocotools(tmp_path, change):
    for seed in range(3):
        truth, detections = scene(seed)
        if change == "ids from 0":
            for i, entry in enumerate(truth["annotations"]):
                entry["id"] = i
        if change == "one id twice":
            truth["annotations"][3]["id"] = truth["annotations"][0]["id"]
        if change == "boxes":
            for entry in detections:
                entry["bbox"] = coco_mask.toBbox(entry["segmentation"]).tolist()
        if change == "area of none":
            truth["annotations"] = [entry for entry in truth["annotations"] if entry["area"] > 32**2]
        content, findings = evaluate(written(tmp_path, truth, detections))
        expected = coco_figures(truth, detections)
        assert {name: content[name] for name in FIGURES} == pytest.approx(expected, abs=1e-6)
        assert ("duplicate_annotation_ids" in findings) == (change == "one id twice")
        assert ("annotations_with_id_0_that_coco_never_finds" in findings) == (change == "ids from 0")


@pytest.mark.parametrize("name", ["instances_subset_train2017", "instances_subset_val2017"])
def test_real_annotations(shared_dir, tmp_path, name):
    """Crowds, polygons and run lengths of COCO; detections are its masks moved, wrong, doubled and left out."""
    truth = json.loads((shared_dir / f"data/coco/annotations/{name}.json").read_text())
    rng = np.random.default_rng(0)
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    categories = [category["id"] for category in truth["categories"]]
    detections = []
    for entry in truth["annotations"]:
        shape = entry["segmentation"]
        if isinstance(shape, list):
            dx, dy = rng.normal(0, 0.05, 2) * entry["bbox"][2:]
            shape = [[value + (dy if i % 2 else dx) for i, value in enumerate(polygon)] for polygon in shape]
            shape = coco_mask.merge(coco_mask.frPyObjects(shape, *sizes[entry["image_id"]]))
        else:
            shape = coco_mask.frPyObjects(shape, *shape["size"])
        shape = {"size": list(shape["size"]), "counts": shape["counts"].decode()}
        category = entry["category_id"] if rng.random() < 0.9 else int(rng.choice(categories))
        item = {"image_id": entry["image_id"], "category_id": category, "segmentation": shape}
        detections += [item | {"score": round(rng.random(), 1)} for _ in range(rng.integers(0, 3))]
    content, _ = evaluate(written(tmp_path, truth, detections))
    assert {name: content[name] for name in FIGURES} == pytest.approx(coco_figures(truth, detections), abs=1e-6)
    assert any(entry["iscrowd"] for entry in truth["annotations"]) and 0.1 < content["AP"] < 0.9


def test_golden_figures(shared_dir, tmp_path):
    folder = shared_dir / "golden/eval"
    command = ["eval", "instance", "--results", str(folder / "instances_dt.json")]
    command += ["--gt", str(folder / "instances_gt.json"), "--json", str(tmp_path / "a.json"), "--bootstrap", "100"]
    result = CliRunner().invoke(app, [*command, "--csv", str(tmp_path / "a.csv")])
    assert result.exit_code == 0 and "| person " in result.stdout
    content = json.loads((tmp_path / "a.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())["instance"]
    assert round(100 * content["point_accuracy"], 2) == expected.pop("point_accuracy")
    assert {name: round(content[name], 3) for name in expected} == expected
    assert len((tmp_path / "a.csv").read_text().splitlines()) == content["counts"]["images"] + 1


def test_point_accuracy_is_the_share_in_the_union_of_the_category(tmp_path):
    truth, detections = scene(5)
    detections[0]["point"] = [WIDTH, 0]
    detections[1]["category_id"] = 3
    del detections[2]["point"]
    content, _ = evaluate(written(tmp_path, truth, detections))
    right = []
    for entry in detections:
        union = np.zeros((HEIGHT, WIDTH), bool)
        for other in truth["annotations"]:
            if (other["image_id"], other["category_id"]) == (entry["image_id"], entry["category_id"]):
                shape = other["segmentation"]
                if isinstance(shape, list):
                    shape = coco_mask.merge(coco_mask.frPyObjects(shape, HEIGHT, WIDTH))
                union |= coco_mask.decode(shape).astype(bool)
        if "point" in entry:
            x, y = entry["point"]
            right.append(x < WIDTH and bool(union[y, x]))
    assert content["point_accuracy"] == pytest.approx(np.mean(right))
    assert content["counts"]["detections_without_a_point"] == 1


def test_resampled_ap_is_ap_of_the_resampled_set(tmp_path):
    """An image that is drawn twice is an image and its copy, for pycocotools."""
    truth, detections = scene(7, n_images=20)
    content, _ = evaluate(dataclasses.replace(written(tmp_path, truth, detections), n_resamples=5))
    evidence = {"AP": content["evidence"]["instance"]["AP"]}
    drawn = bootstrap.resamples(len(content["images"]), 3, seed=1)
    found = bootstrap.figures(evidence, drawn)
    for row, weights in enumerate(drawn):
        copies = {int(key): int(n) for key, n in zip(content["images"], weights, strict=True)}
        new = {"images": [], "annotations": [], "categories": truth["categories"]}
        answers = []
        for image in sorted(truth["images"], key=lambda entry: entry["id"]):
            for copy in range(copies[image["id"]]):
                key = image["id"] * 100 + copy
                new["images"].append(image | {"id": key})
                for entry in truth["annotations"]:
                    if entry["image_id"] == image["id"]:
                        new["annotations"].append(entry | {"image_id": key, "id": len(new["annotations"]) + 1})
                answers += [entry | {"image_id": key} for entry in detections if entry["image_id"] == image["id"]]
        expected = coco_figures(new, answers)
        assert {name: found[name][row] for name in found} == pytest.approx(
            {name: expected[name] for name in ("AP", "AP50", "AP75")}, abs=1e-6
        )


def test_ids_may_be_strings_or_numbers_and_runs_may_be_lists(tmp_path):
    truth, detections = scene(2)
    before, _ = evaluate(written(tmp_path, truth, detections))
    for entry in detections:
        entry["image_id"], entry["category_id"] = str(entry["image_id"]), str(entry["category_id"])
        mask = coco_mask.decode(entry["segmentation"]).flatten(order="F")
        changes = np.flatnonzero(np.diff(np.concatenate([[0], mask])))
        entry["segmentation"]["counts"] = np.diff([0, *changes, len(mask)]).tolist()
    after, findings = evaluate(written(tmp_path, truth, detections))
    assert {name: after[name] for name in (*FIGURES, "point_accuracy")} == {
        name: before[name] for name in (*FIGURES, "point_accuracy")
    }
    assert "detections_of_unknown_images" not in findings


def test_what_is_wrong_is_counted(tmp_path):
    truth, detections = scene(4)
    truth["images"].append({"id": 1000, "height": 4, "width": 4})
    truth["annotations"][0]["category_id"] = 9
    detections[0]["image_id"] = 12345
    detections[1]["category_id"] = 77
    detections[2]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": "PPP"}
    del detections[3]["score"]
    del detections[4]["segmentation"]
    arguments = written(tmp_path, truth, detections)
    content, _ = evaluate(arguments)
    for name in ("detections_of_unknown_images", "detections_of_unknown_categories", "unreadable_masks"):
        assert content["counts"][name] == 1
    for name in ("masks_without_a_score", "unusable_detections", "annotations_of_unknown_categories"):
        assert content["counts"][name] == 1
    assert content["counts"]["images_without_true_masks"] >= 1
    options = ["eval", "instance", "--results", str(arguments.results), "--gt", str(arguments.gt), "--bootstrap", "9"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 3 and "1 unreadable masks: detection 3" in result.stderr


def test_no_detections_are_zeros_and_nonsense_is_one_line(tmp_path):
    truth, _ = scene(4)
    content, _ = evaluate(written(tmp_path, truth, []))
    assert content["AP"] == content["AR100"] == 0 and "point_accuracy" not in content
    for wrong in ({"a": 1}, [1, 2]):
        arguments = written(tmp_path, truth, wrong)
        result = CliRunner().invoke(
            app, ["eval", "instance", "--results", str(arguments.results), "--gt", str(arguments.gt)]
        )
        assert result.exit_code == 2 and "Traceback" not in result.stderr and "--results" in result.stderr


def test_run_folders_are_read(tmp_path):
    truth, detections = scene(6)
    expected, _ = evaluate(written(tmp_path, truth, detections))
    folder = tmp_path / "run"
    folder.mkdir()
    for image in truth["images"]:
        mine = [entry for entry in detections if entry["image_id"] == image["id"]]
        (folder / f"{image['id']}.json").write_text(json.dumps({"image_id": image["id"], "detections": mine}))
    found, _ = evaluate(EvalInstance(results=folder, gt=tmp_path / "gt.json", n_resamples=0))
    # Which of equal scores of one image come first is as in the list; images rank by id.
    assert {name: found[name] for name in FIGURES} == {name: expected[name] for name in FIGURES}


def test_compare_is_paired(tmp_path):
    """A better run is better in every resample of the same images; another order of the images changes nothing."""
    truth, detections = scene(9, n_images=30)
    files = []
    for name, kept in (("worse", detections[::2]), ("better", detections)):
        arguments = written(tmp_path, truth, kept)
        files.append(str(tmp_path / f"{name}.json"))
        options = ["eval", "instance", "--results", str(arguments.results), "--gt", str(arguments.gt)]
        assert CliRunner().invoke(app, [*options, "--json", files[-1], "--bootstrap", "1"]).exit_code == 0
    result = CliRunner().invoke(app, ["eval", "compare", *files, "--json", str(tmp_path / "c.json")])
    assert result.exit_code == 0
    found = json.loads((tmp_path / "c.json").read_text())["instance"]["AP"]
    better, worse = (json.loads(Path(name).read_text())["AP"] for name in reversed(files))
    assert found["difference"] == pytest.approx(better - worse) and found["p"] < 0.05 and found["interval"][0] > 0
    turned = CliRunner().invoke(app, ["eval", "compare", *reversed(files)])
    assert f"{-found['difference']:+.3f}" in turned.stdout
    assert CliRunner().invoke(app, ["eval", "compare", files[0], str(tmp_path / "gt.json")]).exit_code == 2
