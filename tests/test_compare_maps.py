"""`aas compare maps`: its figures against their definitions, and the command on a photograph whose things are known."""

import json

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.filters import threshold_otsu
from typer.testing import CliRunner

import aas
from aas import rle
from aas.cli import app
from aas.geometry import otsu_mask
from aas.geometry.maps import map_on_image
from aas.metrics.maps import best_iou, map_figures
from aas.records import View

VIEW, IMAGE_HW = View((6, 8), (0, 0, 64, 60)), (60, 64)


@pytest.fixture
def grid() -> np.ndarray:
    return np.random.default_rng(0).random((6, 8)).round(1).astype(np.float32)  # with equal values


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(IMAGE_HW, bool)
    mask[13:37, 21:50] = True
    return mask


def test_figures_of_a_map_are_those_of_its_pixels(grid, mask):
    figures = map_figures(grid, VIEW, (30, 20), [mask, mask & (np.indices(IMAGE_HW)[1] < 30)])
    pixels = np.kron(grid, np.ones((10, 8)))  # a cell is 10 x 8 pixels
    on, off = pixels[mask], pixels[~mask]
    auc = np.mean([(value > off).mean() + (value == off).mean() / 2 for value in on])
    assert figures["AUC"] == pytest.approx(auc) and figures["point"] == 1
    assert figures["NSS"] == pytest.approx(((pixels - pixels.mean()) / pixels.std())[mask].mean(), rel=1e-5)
    assert map_figures(grid, VIEW, (0, 0), [mask])["point"] == 0
    flat = map_figures(np.ones((6, 8), np.float32), VIEW, (0, 0), [mask])
    assert flat["AUC"] == 0.5 and flat["NSS"] == 0


def test_otsu_mask(grid, mask):
    pixels = map_on_image(grid, VIEW, IMAGE_HW)
    levels = ((pixels - pixels.min()) / np.ptp(pixels) * 255).astype(np.uint8)
    expected = levels > threshold_otsu(levels)
    ours = otsu_mask(grid, VIEW, IMAGE_HW)
    assert (ours != expected).mean() < 0.01
    figures = map_figures(grid, VIEW, (0, 0), [mask])
    assert figures["Otsu IoU"] == pytest.approx((ours & mask).sum() / (ours | mask).sum())
    assert best_iou(mask, [~mask, mask]) == 1 and not otsu_mask(np.ones((6, 8), np.float32), VIEW, IMAGE_HW).any()


@pytest.fixture
def known(tmp_path):
    """Chelsea, the right two thirds of her picture being "cat", and a picture that cannot be read."""
    photo = data.chelsea()
    mask = np.zeros(photo.shape[:2], bool)
    mask[:, 150:] = True
    Image.fromarray(photo).save(tmp_path / "cat.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    height, width = mask.shape
    thing = {"category_id": 5, "segmentation": rle.of_mask(mask), "area": int(mask.sum()), "iscrowd": 0}
    names = ("cat.png", "bad.png", "gone.png")
    truth = {
        "images": [{"id": i, "file_name": name, "height": height, "width": width} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, **thing} for i in range(3)],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "bus"}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    rows = [{"image": name, "answer": "A cat is on a sofa."} for name in names]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path, mask


def test_the_command(known):
    folder, mask = known
    words = ["compare", "maps", "--images", folder, "--gt", folder / "gt.json", "--answers", folder / "answers.jsonl"]
    words += ["--maps", "mean,tam", "--json", folder / "out.json", "--bootstrap", 20]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 3 and "bad.png" in result.output, result.output
    assert "1 phrases of 1 photographs, 0 of things below 30%" in result.output
    content = json.loads((folder / "out.json").read_text())
    (case,) = content["cases"]
    assert (case["phrase"], case["category"]) == ("A cat", "cat")
    for name in ("mean", "tam"):
        grounding = aas.Grounder(maps=name)(data.chelsea(), answer="A cat is on a sofa.")
        phrase = grounding["a cat"]
        expected = map_figures(phrase.map, grounding.view, phrase.point_xy, [mask])
        expected["mask IoU"] = best_iou(phrase.mask, [mask])
        assert case["figures"][name] == pytest.approx(expected, rel=1e-4)
        assert content["figures"][name]["point"] == expected["point"]
    assert content["differences"]["tam"]["NSS"]["difference"] == pytest.approx(
        case["figures"]["tam"]["NSS"] - case["figures"]["mean"]["NSS"]
    )


def test_what_cannot_be_compared_is_said(known):
    folder, _ = known
    words = ["compare", "maps", "--images", folder / "none", "--gt", folder / "gt.json"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2 and "none of the photographs" in result.output
    result = CliRunner().invoke(app, [*map(str, words), "--maps", "men"])
    assert result.exit_code == 2 and "Unknown map source 'men'" in result.output
