"""`--segmenter map`: masks straight from the maps, where they lie, against OpenCV's bicubic and scikit-image's Otsu."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from skimage.filters import threshold_otsu

from aas.geometry import padded_view, stretched_view
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed
from aas.records import Answer, AttentionMaps, Phrase, Prompt, View
from aas.segmenters import load_segmenter
from aas.store.attention import AttentionItem, write_item
from tests import tiny
from tests.command import run

IMAGE_HW = (60, 90)


def bump(at: tuple[int, int], size_hw: tuple[int, int] = (9, 9)) -> np.ndarray:
    rows, columns = np.indices(size_hw)
    return np.exp(-((rows - at[0]) ** 2 + (columns - at[1]) ** 2) / 4).astype(np.float32)


def pointed(grid_map: np.ndarray, view: View) -> Pointed:
    phrase = Phrase("a cat", (0, 5), (2, 5), (0,))
    return Pointed(phrase, grid_map, view, (0, 0), Prompt(np.zeros((1, 2), np.float32), np.ones(1, np.int64)))


def masks_of(*some: Pointed, choice="last") -> np.ndarray:
    segmenter = load_segmenter("map")
    (embedding,) = segmenter.encode([np.zeros((*IMAGE_HW, 3), np.uint8)])
    found = phrase_masks(segmenter, embedding, some, choice)
    assert all(one.scores.tolist() == [1.0] for one in found)
    return np.array([one.masks[0] for one in found])


@pytest.mark.parametrize("choice", ["last", "best-score", "best-attention"])
def test_masks_are_what_lies_above_otsus_threshold(choice):
    """The image was padded to a square of 90: 15 rows of pixels above and below it are none of its."""
    view = padded_view((9, 9), IMAGE_HW)
    maps = [bump((3, 6)), bump((5, 1))]
    found = masks_of(*(pointed(one, view) for one in maps), choice=choice)
    for mask, grid_map in zip(found, maps, strict=True):
        pixels = cv2.resize(grid_map, (90, 90), interpolation=cv2.INTER_CUBIC)[15:75]
        levels = ((pixels - pixels.min()) / np.ptp(pixels) * 255).astype(np.uint8)
        assert (mask != (levels > threshold_otsu(levels))).mean() < 0.001
        assert mask[np.unravel_index(pixels.argmax(), pixels.shape)]


def test_nothing_lies_where_the_grid_does_not_reach():
    crop = View((6, 6), (15.0, 0.0, 75.0, 60.0))  # the centre of the image: its sides were not seen
    sides = np.ones(IMAGE_HW, bool)
    sides[:, 15:75] = False
    found = masks_of(pointed(bump((2, 0), (6, 6)), crop), pointed(np.ones((6, 6), np.float32), crop))
    assert found[0][15:35, 15:25].all() and not found[0][sides].any()
    assert not found[1].any(), "a constant map has nothing above the rest"


def test_it_makes_nothing_of_points():
    segmenter = load_segmenter("map")
    with pytest.raises(ValueError, match="of no points"):
        segmenter.masks(segmenter.encode([tiny.a_photo()])[0], np.zeros((1, 1, 2)))


def test_segment_with_it(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(tiny.a_photo(IMAGE_HW)).save(tmp_path / "photos/0.png")
    maps = np.stack([bump((1, 1)), bump((4, 7)), bump((8, 0))])
    answer = Answer("What?", "a cat.", (0, 1, 2), ((0, 1), (1, 5), (5, 6)))
    item = AttentionItem("0.png", IMAGE_HW, answer, AttentionMaps(maps, stretched_view((9, 9), IMAGE_HW)))
    write_item(tmp_path / "attn/0.png.safetensors", item)
    where = ("--attn", tmp_path / "attn", "--images", tmp_path / "photos", "--out", tmp_path / "out")
    code, output = run("segment", "gcg", *where, "--segmenter", "map", "--workers", 0)
    assert code == 0, output
    result = json.loads((tmp_path / "out/0.json").read_text())
    mask = coco_mask.decode(result["pred_masks"][0]).astype(bool)
    expected = masks_of(pointed(maps[1] - maps.mean(0), stretched_view((9, 9), IMAGE_HW)))[0]
    assert result["covers_point"] == [True] and result["scores"] == [1.0]
    np.testing.assert_array_equal(mask, expected)
