"""`aas compare maps`: its figures against their definitions, and the command on a photograph whose things are known."""

import json
import re
from zlib import crc32

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.filters import threshold_otsu
from typer.testing import CliRunner

import aas
from aas import rle
from aas.cli import app
from aas.datasets.instances import read_truth
from aas.evaluations import report
from aas.geometry import otsu_mask
from aas.geometry.maps import map_on_image
from aas.metrics import bootstrap
from aas.metrics.deletion import GREY, greyed, largest_cells, random_cells
from aas.metrics.maps import best_iou, map_figures
from aas.metrics.mean import mean_evidence
from aas.presets import DEFAULT_QUESTION
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


def test_cells_are_greyed_where_they_lie_on_the_image():
    """A padded view: of 6 x 8 cells of 10 x 10 pixels the first column lies beside the image, the last row half.
    Columns begin between pixels: a pixel is of the cell that its centre lies in."""
    view, image_hw = View((6, 8), (-10.6, 0, 69.4, 60)), (55, 70)
    cells = np.array([(row, column) for row in range(6) for column in range(8)])
    values = np.random.default_rng(1).random((6, 8))
    on_image = cells[:, 1] > 0
    best = cells[on_image][np.argsort(-values.ravel()[on_image])[:6]]  # 12 % of 42 cells are 5.04
    chosen = largest_cells(values, view, image_hw)
    assert sorted(map(tuple, best.tolist())) == sorted(map(tuple, np.argwhere(chosen).tolist()))
    image = np.zeros((*image_hw, 3), np.uint8)
    expected = image.copy()
    for row, column in best:
        expected[10 * row : 10 * row + 10, max(0, 10 * column - 11) : 10 * column - 1] = GREY
    np.testing.assert_array_equal(greyed(image, chosen, view), expected)
    drawn = random_cells(view, image_hw, np.random.default_rng(2))
    assert drawn.sum() == 6 and not drawn[:, 0].any()


def test_figures_below_0_keep_their_sign():
    values, images = [-1.0, -0.5, -0.8], [0, 1, 2]
    evidence = {"NSS": mean_evidence(values, images, signed=True), "AUC": mean_evidence(values, images)}
    found = bootstrap.intervals(evidence, 3, 200, 0)
    assert found["NSS"][0] < found["NSS"][1] < 0 and found["AUC"] == [0, 0]
    assert report.cell(-0.5, signed=True) == "-0.500" and report.cell(-1.0) == report.cell(None, signed=True) == "–"


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
    words += ["--maps", "mean,tam", "--json", folder / "out.json", "--bootstrap", 20, "--costs", 1]
    result = CliRunner().invoke(app, [*map(str, words), "--page", str(folder / "map-report.html")])
    assert result.exit_code == 3 and "bad.png" in result.output, result.output
    assert "1 phrases of 1 photographs, 0 of things below 30%" in result.output
    content = json.loads((folder / "out.json").read_text())
    (case,) = content["cases"]
    assert (case["phrase"], case["category"]) == ("A cat", "cat")
    grounder = aas.Grounder(maps=("mean", "tam"))
    both = grounder.lmm.ask(data.chelsea(), DEFAULT_QUESTION, "A cat is on a sofa.", grounder.ask_options)
    for name in ("mean", "tam"):
        grounding = grounder.ground(data.chelsea(), both[0], both[1].of(name))
        phrase = grounding["a cat"]
        expected = map_figures(phrase.map, grounding.view, phrase.point_xy, [mask])
        expected["mask IoU"] = best_iou(phrase.mask, [mask])
        expected["deletion"] = lost_by_deletion(grounder.lmm, phrase, grounding)
        assert case["figures"][name] == pytest.approx(expected, rel=1e-4)
        assert content["figures"][name]["point"] == expected["point"]
    assert content["differences"]["tam"]["NSS"]["difference"] == pytest.approx(
        case["figures"]["tam"]["NSS"] - case["figures"]["mean"]["NSS"]
    )
    assert content["costs"]["tam"]["bytes"] > content["costs"]["mean"]["bytes"] > 0
    assert content["costs"]["mean"]["milliseconds"] > 0 and "| ms " in result.output
    page = re.search('id="page"[^>]*>(.*?)</script>', (folder / "map-report.html").read_text(), re.DOTALL)
    (entry,) = json.loads(page[1])["entries"]
    (panel,) = entry["panels"]
    assert panel["sources"] == ["mean", "tam"] and [one["text"] for one in panel["phrases"]] == ["A cat"]
    assert panel["own"][1]["notes"][0].startswith("on it" if case["figures"]["tam"]["point"] else "beside it")
    assert f" IoU {case['figures']['tam']['mask IoU']:.2f} " in panel["own"][1]["notes"][0]
    assert "| mask IoU " in result.output and "mask IoU" in content["differences"]["tam"]
    x, y = phrase.point_xy
    assert panel["own"][1]["points"][0]["at"] == pytest.approx([(x + 0.5) / 451, (y + 0.5) / 300], abs=2e-3)


def lost_by_deletion(lmm, phrase, grounding) -> float:
    """What the tokens of a phrase lose with its map's largest cells, beyond what they lose with three drawn sets."""
    photo, view = data.chelsea(), grounding.view
    generator = np.random.default_rng([0, crc32(b"cat.png")])
    drawn = [largest_cells(generator.random(view.size_hw), view, photo.shape[:2]) for _ in range(3)]
    answers = [
        lmm.ask(greyed(photo, cells, view), DEFAULT_QUESTION, grounding.answer.text)[0]
        for cells in [*drawn, largest_cells(phrase.map, view, photo.shape[:2])]
    ]
    likely = [np.mean([one.token_log_probs[i] for i in phrase.token_indices]) for one in answers]
    return np.mean(likely[:3]) - likely[3]


def test_boxes_are_truth_beside_masks(known):
    """Of a thing that is known by its box points and maps are measured, and no masks."""
    folder, _ = known
    truth = json.loads((folder / "gt.json").read_text())
    truth["images"] = truth["images"][:1]
    boxed = {"id": 1, "image_id": 0, "category_id": 5, "bbox": [150, 20, 251, 200], "segmentation": []}
    (folder / "gt.json").write_text(json.dumps(truth | {"annotations": [boxed]}))
    findings: dict = {}
    (found,) = read_truth(folder / "gt.json", findings, boxes=True).masks
    expected = np.zeros((300, 451), bool)
    expected[20:220, 150:401] = True
    assert found.is_box and not findings
    np.testing.assert_array_equal(rle.decoded(found.rle), expected)
    (without,) = read_truth(folder / "gt.json", findings).masks
    assert not without.is_box and not rle.decoded(without.rle).any() and "unreadable_masks" in findings

    words = ["compare", "maps", "--images", folder, "--gt", folder / "gt.json", "--answers", folder / "answers.jsonl"]
    words += ["--maps", "mean", "--json", folder / "out.json", "--bootstrap", 1, "--costs", 0, "--no-deletion"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0 and "IoU" not in result.output, result.output
    (case,) = json.loads((folder / "out.json").read_text())["cases"]
    assert case["figures"]["mean"].keys() == {"point", "AUC", "NSS"}
    assert case["area"] == pytest.approx(expected.mean())


def test_what_cannot_be_compared_is_said(known):
    folder, _ = known
    words = ["compare", "maps", "--images", folder / "none", "--gt", folder / "gt.json"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 2 and "none of the photographs" in result.output
    result = CliRunner().invoke(app, [*map(str, words), "--maps", "men"])
    assert result.exit_code == 2 and "Unknown map source 'men'" in result.output
