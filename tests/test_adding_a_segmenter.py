"""docs/adding-a-segmenter.md as a stranger follows it: its GrabCut, its registry line, its commands, on photographs."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from skimage import data

import aas.segmenters
from aas import registry
from aas.geometry import stretched_view
from aas.ground import Grounder
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed
from aas.records import Answer, AttentionMaps, Phrase, Prompt
from aas.segmenters import load_segmenter
from aas.segmenters.base import CONTRACT, ImageEmbedding, MaskCandidates, Segmenter
from aas.store.attention import AttentionItem, write_item
from tests.command import run

PAGE = (Path(__file__).parent.parent / "docs/adding-a-segmenter.md").read_text()
FILE, LINE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:2]
N_COPIES = 3


@pytest.fixture
def grabcut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Segmenter]]:
    """The page's file in the project's folder, and its line in the table."""
    ((name, where),) = eval(f"{{{LINE}}}").items()
    (tmp_path / f"{where.split(':')[0].split('.')[-1]}.py").write_text(FILE)
    monkeypatch.setattr(aas.segmenters, "__path__", [*aas.segmenters.__path__, str(tmp_path)])
    monkeypatch.setitem(registry.SEGMENTERS_BY_NAME, name, where)
    yield registry.load(registry.SEGMENTERS_BY_NAME, "grabcut", "segmenter")
    del sys.modules[where.split(":")[0]]


@pytest.fixture(scope="module")
def rocket() -> SimpleNamespace:
    """A photograph, where its rocket stands, and a point on it. The whole photograph has an IoU of 0.02 with it."""
    photo = np.array(Image.fromarray(data.rocket()).resize((320, 214)))
    thing = np.zeros(photo.shape[:2], bool)
    thing[65:202, 156:166] = True  # a rectangle by hand: the rocket is nearly one
    return SimpleNamespace(photo=photo, thing=thing, point_xy=(160, 160))


@pytest.fixture(scope="module")
def attn(tmp_path_factory: pytest.TempPathFactory, rocket: SimpleNamespace) -> Path:
    """Photographs of the rocket, and attention that is largest on it at the word."""
    root, (height, width) = tmp_path_factory.mktemp("rocket"), rocket.photo.shape[:2]
    (root / "photos").mkdir()
    text = "I see a rocket."
    spans = ((0, 1), (1, 5), (5, 7), (7, 14), (14, 15))
    maps = np.zeros((5, 24, 32), np.float32)
    maps[3, rocket.point_xy[1] * 24 // height, rocket.point_xy[0] * 32 // width] = 0.001
    attention = AttentionMaps(maps, stretched_view((24, 32), (height, width)))
    for i in range(N_COPIES):
        Image.fromarray(rocket.photo).save(root / f"photos/{i}.png")
        answer = Answer("What?", text, tuple(range(5)), spans)
        item = AttentionItem(f"{i}.png", (height, width), answer, attention)
        write_item(root / f"attn/{i}.png.safetensors", item)
    return root


def segmented(attn: Path, out: Path, *more: object) -> dict[str, dict]:
    where = ("--attn", attn / "attn", "--images", attn / "photos", "--out", out)
    code, output = run("segment", "gcg", *where, "--segmenter", "grabcut", "--drop", "pronouns", *more)
    assert code == 0, output
    return {path.name: json.loads(path.read_text()) for path in out.glob("[0-9]*.json")}


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


# ----------------------------------------------------------------------------------------------- the page's GrabCut


def test_the_page_says_it_in_few_lines() -> None:
    assert len([line for line in FILE.splitlines() if line.strip()]) <= 35


@pytest.mark.parametrize("prompt", ["point", "points", "box", "mask"])
def test_every_kind_of_prompt(grabcut: type[Segmenter], rocket: SimpleNamespace, prompt: str) -> None:
    height, width = rocket.photo.shape[:2]
    coarse = np.full((64, 64), -5, np.float32)
    coarse[12:40, 30:35] = 5  # of a square of 320 pixels, 5 to a cell
    x, y = rocket.point_xy
    prompts = {
        "point": {"points_xy": np.array([[[x, y]]], np.float32)},
        "points": {"points_xy": np.array([[[x, y], [x, y - 70], [40, 40]]]), "labels": np.array([[1, 1, 0]])},
        "box": {"boxes_xyxy": np.array([[x - 15, 55, x + 18, 205]], np.float32)},
        "mask": {"boxes_xyxy": np.array([[0, 0, width, height]], np.float32), "mask_logits": coarse[None]},
    }[prompt]
    segmenter = grabcut()
    (embedding,) = segmenter.encode([rocket.photo])
    found = segmenter.masks(embedding, **prompts)
    assert found.masks.shape == (1, 1, height, width) and found.scores.shape == (1, 1)
    assert iou(found.masks[0, 0], rocket.thing) > (0.3 if prompt == "point" else 0.6)
    again = segmenter.masks(embedding, **{name: np.repeat(values, 2, 0) for name, values in prompts.items()})
    assert (again.masks == found.masks).all(), "a prompt's mask depends on no other prompt"


def test_segment_with_it(grabcut: type[Segmenter], attn: Path, rocket: SimpleNamespace, tmp_path: Path) -> None:
    """With worker processes and without, whether they do whole images or only prepare them: the same."""
    found = segmented(attn, tmp_path / "alone", "--workers", 0)
    assert len(found) == N_COPIES
    for item in found.values():
        assert item["phrases"] == ["a rocket"] and item["covers_point"] == [True] and item["scores"] == [1.0]
        assert iou(coco_mask.decode(item["pred_masks"][0]).astype(bool), rocket.thing) > 0.3
    assert segmented(attn, tmp_path / "workers", "--workers", 2) == found
    assert segmented(attn, tmp_path / "batches", "--workers", 2, "--batch-size", 2) == found
    for choice in ("best-score", "best-attention"):
        assert segmented(attn, tmp_path / choice, "--mask-choice", choice) == found
    masks = segmented(attn, tmp_path / "masks", "--prompt", "mask")
    assert len(masks) == N_COPIES and len({item["pred_masks"][0]["counts"] for item in masks.values()}) == 1
    assert masks != found


def test_ground_with_it(grabcut: type[Segmenter], attn: Path, tmp_path: Path) -> None:
    asked = ("ground", attn / "photos/0.png", "--answer", "a rocket on a tower", "--segmenter", "grabcut")
    code, output = run(*asked, "--out", tmp_path)
    assert code == 0, output
    item = json.loads((tmp_path / "0.json").read_text())
    assert item["phrases"] == ["a rocket", "a tower"]
    for (x, y), mask in zip(item["points"], item["pred_masks"], strict=True):
        assert coco_mask.decode(mask)[y, x]


def test_a_grounder_takes_the_object(grabcut: type[Segmenter], rocket: SimpleNamespace) -> None:
    segmenter = grabcut()
    grounder = Grounder(segmenter=segmenter)
    assert grounder.segmenter is segmenter
    (phrase,) = grounder(rocket.photo, answer="a rocket").phrases
    assert phrase.mask[phrase.point_xy[1], phrase.point_xy[0]]


# ------------------------------------------------------------------------------------- a class of the user's own

OWN = '''
import numpy as np, torch
from aas.segmenters.base import ImageEmbedding, MaskCandidates

class Left:
    """Four names and no base: the left half, as a choice of two."""
    mask_side = 8
    def __init__(self, device, dtype):
        self.device, self.dtype = device, dtype
    def encode(self, images):
        return [ImageEmbedding(image.shape[:2], None) for image in images]
    def masks(self, embedding, points_xy=None, labels=None, *, boxes_xyxy=None, mask_logits=None):
        height, width = embedding.size_hw
        masks = np.zeros((len(points_xy), 2, height, width), bool)
        masks[:, 1, :, : width // 2] = True
        return MaskCandidates(masks, np.tile([0.25, 0.5], (len(masks), 1)))

class Wrong(Left):
    def masks(self, embedding, points_xy=None, labels=None, **more):
        return MaskCandidates(np.zeros((len(points_xy), 1, 4, 4), bool), np.ones((len(points_xy), 1)))

class Nothing:
    def __init__(self, device, dtype): pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with the user's file, which is not on the path: as an installed command sees it."""
    (tmp_path / "my_own").mkdir()
    (tmp_path / "my_own/halves.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_own"]:
        del sys.modules[name]


def test_a_class_of_the_users_own(folder: Path, attn: Path) -> None:
    found = segmented(attn, folder / "out", "--segmenter", "my_own.halves:Left")
    for item in found.values():
        assert coco_mask.area(item["pred_masks"][0]) == 214 * 160 and item["scores"] == [0.5]
    assert json.loads((folder / "out/run.json").read_text())["arguments"]["segmenter"] == "my_own.halves:Left"


def test_device_and_dtype_reach_it(folder: Path) -> None:
    segmenter = load_segmenter("my_own.halves:Left", torch.device("cpu"), "bfloat16")
    assert segmenter.device == torch.device("cpu") and segmenter.dtype == torch.bfloat16  # type: ignore[attr-defined]
    assert load_segmenter(segmenter, "cuda:7") is segmenter
    assert load_segmenter("my_own.halves:Left", None).device.type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:GrabCut", "'no_such_module:GrabCut' cannot be imported: No module named 'no_such_module'"),
        ("my_own.halves:Right", "cannot be imported: .*no attribute 'Right'"),
        ("my_own.halves:Nothing", "my_own.halves:Nothing is no segmenter: it lacks encode, masks, device, mask_side"),
    ],
)
def test_a_class_that_is_none(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_segmenter(name)


def test_what_is_no_segmenter_and_no_class(folder: Path) -> None:
    with pytest.raises(ValueError, match="dict is no segmenter: it lacks encode"):
        load_segmenter({})  # type: ignore[arg-type]
    (folder / "a:b").mkdir()
    with pytest.raises(FileNotFoundError, match=r"a:b is no segmenter: it has no config\.json"):
        load_segmenter("a:b")
    with pytest.raises(FileNotFoundError, match="No segmenter"):
        load_segmenter(r"C:\sam.pth")


def test_masks_of_the_wrong_size_cost_the_image_only(folder: Path, attn: Path) -> None:
    where = ("--attn", attn / "attn", "--images", attn / "photos", "--out", folder / "out")
    code, output = run("segment", "gcg", *where, "--segmenter", "my_own.halves:Wrong")
    assert code == 3 and "0 done" in output
    assert "masks are (4, 4), the photograph is (214, 320) pixels" in (folder / "out/failed.jsonl").read_text()


# ------------------------------------------------------------------------------------------------- the contract


def test_an_unfinished_class_is_not_made() -> None:
    class Unfinished(Segmenter):
        def encode(self, images):
            return []

    with pytest.raises(TypeError, match="masks"):
        Unfinished()  # type: ignore[abstract]
    assert [name for name in CONTRACT if not hasattr(Segmenter, name)] == []


@pytest.mark.parametrize(
    ("masks", "scores"),
    [
        (np.zeros((2, 4, 4), bool), np.zeros((2, 1))),
        (np.zeros((2, 1, 4), bool), np.zeros((2, 1))),
        (np.zeros((2, 1, 4, 4)), np.zeros((2, 1))),
        (np.zeros((2, 3, 4, 4), bool), np.zeros((2, 1))),
    ],
)
def test_candidates_of_another_shape(masks: np.ndarray, scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"bool \[N, K, H, W\] with scores \[N, K\], not"):
        MaskCandidates(masks, scores)


@pytest.mark.parametrize("n_candidates", [1, 4])
def test_choices_among_any_number(n_candidates: int) -> None:
    """Mask k covers the first k + 1 columns of cells; the attention lies on the first two."""

    class Columns(Segmenter):
        def encode(self, images):
            return [ImageEmbedding(image.shape[:2], None) for image in images]

        def masks(self, embedding, points_xy=None, labels=None, **more):
            masks = np.zeros((len(points_xy), n_candidates, *embedding.size_hw), bool)
            for k in range(n_candidates):
                masks[:, k, :, : 10 * (k + 1)] = True
            scores = np.tile(np.array([0.4, 0.2, 0.9, 0.3])[:n_candidates], (len(masks), 1))
            return MaskCandidates(masks, scores)

    segmenter = Columns()
    (embedding,) = segmenter.encode([np.zeros((40, 60, 3), np.uint8)])
    grid_map = np.zeros((4, 6), np.float32)
    grid_map[:, :2] = 1
    pointed = [
        Pointed(
            Phrase("it", (0, 2), (0, 2), (0,)),
            grid_map,
            stretched_view((4, 6), (40, 60)),
            (0, 0),
            Prompt(np.zeros((1, 2), np.float32), np.ones(1, np.int64)),
        )
    ] * 2
    expected = {"last": n_candidates - 1, "best-score": min(2, n_candidates - 1), "best-attention": 1}
    for choice, k in expected.items():
        for one in phrase_masks(segmenter, embedding, pointed, choice):  # type: ignore[arg-type]
            assert one.masks.shape == (1, 40, 60) and one.masks.sum() == 400 * (min(k, n_candidates - 1) + 1)
            assert one.scores.tolist() == [[0.4, 0.2, 0.9, 0.3][min(k, n_candidates - 1)]]
    for one in phrase_masks(segmenter, embedding, pointed, None):
        assert one.masks.shape == (n_candidates, 40, 60) and len(one.scores) == n_candidates
