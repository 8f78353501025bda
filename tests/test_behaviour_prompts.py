"""Which prompts the options of `aas segment` lead to: maps with planted peaks, and the segmenter asked directly."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from aas.records import Answer, AttentionMaps, View
from aas.segmenters import load_segmenter
from aas.segmenters.base import MaskCandidates, Segmenter
from aas.segmenters.choice import choose
from aas.store.attention import AttentionItem, write_item
from tests.command import done
from tests.tiny import segmenters

GRID_HW, CELL = (6, 8), 20  # pixels of a cell: the grid fills the photograph
IMAGE_HW = (GRID_HW[0] * CELL, GRID_HW[1] * CELL)
WORDS = ["a", " dog", " and", " a", " cat", " and", " a", " horse"]
PHRASES = {"a dog": 1, "a cat": 4, "a horse": 7}  # and their token
# Of each phrase the cells (row, column) of peaks and troughs, from the strongest to the weakest.
PEAKS = {"a dog": [(1, 1), (4, 6), (4, 2)], "a cat": [(4, 4), (1, 6), (1, 2)], "a horse": [(2, 4), (4, 1), (5, 6)]}
TROUGHS = {"a dog": [(1, 5), (3, 4)], "a cat": [(4, 1), (2, 4)], "a horse": [(0, 1), (0, 6)]}
SCALE = 0.0005  # of the largest peak: attention as models have it


def bumps(phrase: str) -> np.ndarray:
    rows, columns = np.indices(GRID_HW)
    planted = [(cell, 1 - 0.1 * i) for i, cell in enumerate(PEAKS[phrase])]
    planted += [(cell, 0.1 * i - 0.9) for i, cell in enumerate(TROUGHS[phrase])]
    bump = sum(height * np.exp(-((rows - y) ** 2 + (columns - x) ** 2)) for (y, x), height in planted)
    return (SCALE * bump).astype(np.float32)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Discs and stripes, which a segmenter has something to say about."""
    y, x = np.indices(IMAGE_HW)
    image = np.full((*IMAGE_HW, 3), (200, 210, 220), np.uint8)
    image[(y // 10) % 4 == 0] = (120, 150, 110)
    for (row, column), colour in (((1, 1), (200, 30, 30)), ((4, 4), (20, 20, 160)), ((2, 5), (250, 200, 10))):
        far = np.hypot(y - (row + 0.5) * CELL, x - (column + 0.5) * CELL)
        image[far < 24] = colour
        image[far < 9] = 255 - np.array(colour)
    return image


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    root = tmp_path_factory.mktemp("prompts")
    (root / "photos").mkdir()
    Image.fromarray(photo).save(root / "photos/photo.png")
    ends = np.cumsum(list(map(len, WORDS))).tolist()
    answer = Answer("What?", "".join(WORDS), tuple(range(10, 10 + len(WORDS))), tuple(pairwise([0, *ends])))
    maps = np.zeros((len(WORDS), *GRID_HW), np.float32)
    for phrase, token in PHRASES.items():
        maps[token] = bumps(phrase)
    # One more token makes the mean over all of them zero: what is left without it are the planted maps.
    maps[0] = -maps.sum(0)
    view = View(GRID_HW, (0.0, 0.0, float(IMAGE_HW[1]), float(IMAGE_HW[0])))
    write_item(
        root / "attn/photo.png.safetensors", AttentionItem("photo.png", IMAGE_HW, answer, AttentionMaps(maps, view))
    )
    return root


@pytest.fixture(scope="module")
def segmenter(folder) -> Segmenter:
    return load_segmenter(str(segmenters.undecided_sam(folder / "sam")))


def pixels(phrase: str) -> np.ndarray:
    grid_map = torch.from_numpy(bumps(phrase))[None, None]
    return F.interpolate(grid_map, size=IMAGE_HW, mode="bicubic", align_corners=False)[0, 0].numpy()


def highest_of(image_map: np.ndarray, cell: tuple[int, int]) -> tuple[int, int]:
    """The largest pixel (x, y) of one cell."""
    y0, x0 = cell[0] * CELL, cell[1] * CELL
    y, x = np.unravel_index(image_map[y0 : y0 + CELL, x0 : x0 + CELL].argmax(), (CELL, CELL))
    return x0 + int(x), y0 + int(y)


def asked(segmenter: Segmenter, photo: np.ndarray, phrase: str, n_points: int = 1, n_not: int = 0) -> MaskCandidates:
    image_map = pixels(phrase)
    points = [highest_of(image_map, cell) for cell in PEAKS[phrase][:n_points]]
    points += [highest_of(-image_map, cell) for cell in TROUGHS[phrase][:n_not]]
    labels = np.array([[1] * n_points + [0] * n_not])
    return segmenter.masks(segmenter.encode([photo])[0], np.array([points], np.float32), labels)


def segmented(folder: Path, out: Path, *more: object) -> dict[str, tuple[list[int], np.ndarray, float]]:
    """Phrase -> its point, mask and score."""
    where = ("--attn", folder / "attn", "--images", folder / "photos", "--out", out, "--segmenter", folder / "sam")
    done("segment", "gcg", *where, *more)
    item = json.loads((out / "photo.json").read_text())
    assert item["phrases"] == list(PHRASES)
    masks = [coco_mask.decode(mask).astype(bool) for mask in item["pred_masks"]]
    return dict(zip(PHRASES, zip(item["points"], masks, item["scores"], strict=True), strict=True))


def assert_masks(found: dict, expected: dict[str, tuple[np.ndarray, float]]) -> None:
    """Float rounding may turn a pixel or two: prompts go through the decoder together here, one by one there."""
    for phrase, (mask, score) in expected.items():
        assert (found[phrase][1] != mask).sum() <= 2, phrase
        assert found[phrase][2] == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize(("n_points", "n_not"), [(1, 0), (2, 0), (3, 0), (1, 1), (3, 2)])
def test_points_and_negative_points(folder, photo, segmenter, tmp_path, n_points, n_not):
    found = segmented(folder, tmp_path, "--points", n_points, "--negative-points", n_not)
    expected = {}
    for phrase in PHRASES:
        candidates = asked(segmenter, photo, phrase, n_points, n_not)
        expected[phrase] = candidates.masks[0, -1], candidates.scores[0, -1]
        assert tuple(found[phrase][0]) == highest_of(pixels(phrase), PEAKS[phrase][0])
        assert tuple(found[phrase][0])[::-1] == np.unravel_index(pixels(phrase).argmax(), IMAGE_HW)
    assert_masks(found, expected)


def test_what_is_expected_differs(photo, segmenter):
    """Every number of points leads to masks of its own."""
    for phrase in PHRASES:
        numbers = [(1, 0), (2, 0), (3, 0), (1, 1), (3, 2)]
        masks = [asked(segmenter, photo, phrase, *both).masks[0, -1] for both in numbers]
        assert all((one != other).sum() > 20 for i, one in enumerate(masks) for other in masks[:i]), phrase


def contrast(mask: np.ndarray, phrase: str) -> float:
    """Mean attention of the pixels inside minus that of those outside: cells are whole pixels here."""
    flat = np.kron(bumps(phrase).astype(float), np.ones((CELL, CELL)))
    return flat[mask].mean() - flat[~mask].mean()


@pytest.mark.parametrize("choice", ["last", "best-score", "best-attention"])
def test_mask_choices(folder, photo, segmenter, tmp_path, choice):
    found = segmented(folder, tmp_path, "--points", 1, "--mask-choice", choice)
    expected = {}
    chosen: dict[str, list[int]] = {"last": [], "best-score": [], "best-attention": []}
    for phrase in PHRASES:
        candidates = asked(segmenter, photo, phrase)
        masks, scores = candidates.masks[0], candidates.scores[0]
        which = {
            "last": 2,
            "best-score": int(scores.argmax()),
            "best-attention": int(np.argmax([contrast(mask, phrase) for mask in masks])),
        }
        for name, index in which.items():
            chosen[name].append(index)
        expected[phrase] = masks[which[choice]], scores[which[choice]]
    assert chosen["last"] != chosen["best-score"] != chosen["best-attention"] != chosen["last"]
    assert_masks(found, expected)


def test_the_map_itself_as_a_prompt(folder, photo, segmenter, tmp_path):
    """At the segmenter's own mask resolution: logits of attention / 0.0002, and a box of what is sure."""
    found = segmented(folder, tmp_path, "--prompt", "mask")
    side, (embedding,) = segmenter.mask_side, segmenter.encode([photo])
    expected = {}
    for phrase in PHRASES:
        probability = pixels(phrase) / 0.0002
        y, x = np.nonzero(probability > 0.75)
        box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], np.float32)
        clipped = np.clip(probability, 0.001, 0.999)
        logits = torch.from_numpy(np.log(clipped / (1 - clipped)))[None, None]
        rows = round(side * IMAGE_HW[0] / IMAGE_HW[1])
        small = F.interpolate(logits, size=(rows, side), mode="bicubic", align_corners=False)[0].numpy()
        coarse = np.pad(small, ((0, 0), (0, side - rows), (0, 0)))
        candidates = segmenter.masks(embedding, boxes_xyxy=box, mask_logits=coarse)
        expected[phrase] = candidates.masks[0, -1], candidates.scores[0, -1]
    assert_masks(found, expected)


def test_the_best_attention_leaves_little_outside():
    """Not the mask on the very peak, but that which has all of the thing."""
    view = View((1, 4), (0.0, 0.0, 40.0, 10.0))
    grid_map = np.array([[0.5, 0.45, 0.4, 0.0]], np.float32)
    masks = np.zeros((3, 10, 40), bool)
    masks[0, :, :10] = masks[1, :, :30] = masks[2, :, 10:] = True
    assert choose("best-attention", masks, np.zeros(3, np.float32), grid_map, view) == 1
