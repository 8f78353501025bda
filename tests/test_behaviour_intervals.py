"""Intervals of `aas eval`, through the commands, against resamples written out with numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.command import done

SIDE = 40
# Of each image: detections whose point is on the thing, and detections.
FIRST = [(2, 2), (0, 3), (1, 1), (4, 5), (0, 1), (3, 3), (1, 6), (2, 2), (0, 2), (5, 5), (1, 2), (0, 1)]
SECOND = [(1, 2), (2, 3), (1, 1), (5, 5), (1, 1), (3, 3), (5, 6), (1, 2), (0, 2), (4, 5), (2, 2), (0, 1)]
N_RESAMPLES = 200


def encoded(x0: int, x1: int) -> dict:
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    mask[:, x0:x1] = 1
    rle = coco_mask.encode(mask)
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def evaluated(folder: Path, name: str, points: list[tuple[int, int]], *more: object) -> dict:
    """The thing is the left half of every image; detections find a part of it, some of them with a point beside it."""
    images = [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(points) + 1)]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": SIDE * 20, "segmentation": encoded(0, 20)}
        for i in range(1, len(points) + 1)
    ]
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    detections = [
        {"image_id": i, "category_id": 1, "score": 0.5 + 0.01 * k, "point": [5 if k < right else 35, 7],
         "segmentation": encoded(0, 11 + (3 * i + 5 * k) % 14)}
        for i, (right, n) in enumerate(points, start=1)
        for k in range(n)
    ]  # fmt: skip
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(detections))
    done(
        "eval", "instance", "--results", folder / "dt.json", "--gt", folder / "gt.json", "--json", folder / name, *more
    )
    return json.loads((folder / name).read_text())


def drawn(seed: int) -> np.ndarray:
    """How often each image counts in each resample."""
    n = len(FIRST)
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)


def accuracy(points: list[tuple[int, int]], times: np.ndarray) -> np.ndarray:
    right, n = np.array(points).T
    return (times @ right) / (times @ n)


def around(values: np.ndarray, figure: float) -> list[float]:
    """95 % of the resamples, moved so that their mean is the figure."""
    return np.percentile(values - values.mean() + figure, (2.5, 97.5)).tolist()


@pytest.mark.parametrize("seed", [0, 5])
def test_intervals_are_those_of_the_resamples_of_their_seed(tmp_path, seed):
    content = evaluated(tmp_path, "a.json", FIRST, "--bootstrap", N_RESAMPLES, "--seed", seed)
    figure = float(accuracy(FIRST, np.ones(len(FIRST))))
    assert content["point_accuracy"] == pytest.approx(figure)
    values = accuracy(FIRST, drawn(seed))
    assert abs(values.mean() - figure) > 1e-3, "moving matters"
    assert content["intervals"]["point_accuracy"] == pytest.approx(around(values, figure), abs=1e-9)
    ap, (low, high) = content["AP"], content["intervals"]["AP"]
    assert low < ap < high


def test_no_resamples_no_intervals(tmp_path):
    content = evaluated(tmp_path, "a.json", FIRST, "--bootstrap", 0)
    assert not content.get("intervals")


@pytest.mark.parametrize("seed", [0, 5])
def test_a_comparison_draws_the_same_images_for_both(tmp_path, seed):
    evaluated(tmp_path, "a.json", FIRST, "--bootstrap", 0)
    evaluated(tmp_path, "b.json", SECOND, "--bootstrap", 0)
    pair = (tmp_path / "a.json", tmp_path / "b.json", "--json", tmp_path / "c.json")
    done("eval", "compare", *pair, "--bootstrap", N_RESAMPLES, "--seed", seed)
    found = json.loads((tmp_path / "c.json").read_text())["instance"]["point_accuracy"]
    once, times = np.ones(len(FIRST)), drawn(seed)
    difference = float(accuracy(SECOND, once) - accuracy(FIRST, once))
    values = accuracy(SECOND, times) - accuracy(FIRST, times)
    moved = values - values.mean() + difference
    assert found["difference"] == pytest.approx(difference) and difference > 0
    assert found["interval"] == pytest.approx(around(values, difference), abs=1e-9)
    assert found["p"] == pytest.approx(2 * np.mean(moved <= 0), abs=1e-9) and 0 < found["p"] < 1


def test_an_image_of_one_run_only_does_not_count(tmp_path):
    evaluated(tmp_path, "a.json", FIRST, "--bootstrap", 0)
    evaluated(tmp_path, "b.json", [*SECOND, (9, 9)], "--bootstrap", 0)
    pair = (tmp_path / "b.json", tmp_path / "a.json", "--json", tmp_path / "c.json")
    done("eval", "compare", *pair, "--bootstrap", N_RESAMPLES)
    found = json.loads((tmp_path / "c.json").read_text())["instance"]["point_accuracy"]
    once = np.ones(len(FIRST))
    assert found["a"] == pytest.approx(accuracy(SECOND, once)) and found["b"] == pytest.approx(accuracy(FIRST, once))
    assert found["interval"] == pytest.approx(
        around(accuracy(FIRST, drawn(0)) - accuracy(SECOND, drawn(0)), found["difference"]), abs=1e-9
    )
