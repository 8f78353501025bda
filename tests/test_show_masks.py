"""`aas show masks`: truth beside prediction. The command itself runs in test_segment.py and test_expressions.py."""

import json
from pathlib import Path

import numpy as np
import pytest

from aas import rle
from aas.records import Answer, GroundedPhrase
from aas.show.stored import Truths, grounded, paired
from aas.view import colours, mask_sheet
from aas.view.sharing import things

HW = (40, 60)


def box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def phrase(words: str, mask: np.ndarray, score: float = 0.5) -> GroundedPhrase:
    return grounded(words, (0, 0), mask, score, ())


LEFT, RIGHT, TOP = box(0, 10, 20, 30), box(40, 10, 60, 30), box(20, 0, 40, 10)


def test_pairs_share_a_colour_and_the_rest_have_their_own():
    predicted = [phrase("dog", box(0, 10, 20, 20)), phrase("it", RIGHT), phrase("cat", RIGHT), phrase("sky", TOP)]
    shown = things(predicted)
    assert [thing.phrases for thing in shown] == [(0,), (1, 2), (3,)]
    truth = [
        phrase("right", RIGHT),
        phrase("none", box(20, 20, 40, 40)),
        phrase("left", LEFT),
        phrase("corner", box(0, 0, 2, 2)),
    ]
    beside = paired(predicted, shown, truth)
    assert [(thing.phrases, thing.colour) for thing in beside.things] == [((0,), 1), ((1,), 3), ((2,), 0), ((3,), 4)]
    assert beside.best_ious == pytest.approx([0.5, 1, 0])


def test_greedy_pairs_are_one_to_one_and_need_an_overlap():
    # Both predictions fit the one truth best; the worse of them keeps its colour for itself, and its IoU.
    predicted = [phrase("a", box(0, 10, 20, 20)), phrase("b", box(0, 10, 20, 28))]
    beside = paired(predicted, things(predicted), [phrase("left", LEFT)])
    assert [thing.colour for thing in beside.things] == [1]
    assert beside.best_ious == pytest.approx([0.5, 0.9])
    # An IoU of 2 / 38 is no pair.
    beside = paired(
        [phrase("a", box(0, 0, 2, 10))], things([phrase("a", box(0, 0, 2, 10))]), [phrase("t", box(0, 9, 20, 10))]
    )
    assert [thing.colour for thing in beside.things] == [1] and beside.best_ious == pytest.approx([2 / 38])
    assert paired([], [], [phrase("left", LEFT)]).things[0].colour == 0
    assert paired(predicted, things(predicted), []).best_ious == [0, 0]


def test_the_sheet_draws_truth_and_prediction_in_one_colour_and_says_the_iou(monkeypatch: pytest.MonkeyPatch):
    said = []
    draw = mask_sheet.panel.draw
    monkeypatch.setattr(
        mask_sheet.panel,
        "draw",
        lambda content, *rest, **options: said.append(content) or draw(content, *rest, **options),
    )
    image = np.full((*HW, 3), 128, np.uint8)
    predicted, truth = [phrase("dog", LEFT, 0.75), phrase("cat", RIGHT)], [phrase("cat", RIGHT), phrase("bird", TOP)]
    shown = things(predicted)
    sheet = mask_sheet.draw(
        image, Answer("", "a dog, a cat", (), ()), predicted, shown, paired(predicted, shown, truth)
    )
    assert [(row.colour, row.words, row.note) for row in said[0].rows] == [
        (0, "dog", "0.75  IoU 0.00"),
        (1, "cat", "0.50  IoU 1.00"),
        (2, "bird", "only in the ground truth"),
    ]
    # At the cat's lower edge, in the column of the truth as in that of the prediction.
    columns = [mask_sheet.GAP_PX + i * (640 + mask_sheet.GAP_PX) for i in range(3)]
    y, x = mask_sheet.GAP_PX + mask_sheet.TITLE_PX + 640 * 28 // 60, 640 * 57 // 60
    pixels = [np.array(sheet.getpixel((left + x, y))) for left in columns]
    expected = 128 * 0.55 + np.array(colours.colour_of(1)) * 0.45
    assert (pixels[0] == 128).all()
    assert np.abs(pixels[1] - expected).max() <= 1 and np.abs(pixels[2] - expected).max() <= 1


def test_all_points_of_a_result_are_shown_and_a_mask_prompt_is_marked_inside():
    shown = grounded("a", (0, 0), LEFT, 0.5, ((3, 4, 1), (50, 30, 0)))
    assert shown.point_xy == (3, 4) and shown.prompt_points == (((3, 4), 1), ((50, 30), 0))
    (((x, y), label),) = phrase("a", LEFT).prompt_points
    assert LEFT[y, x] and label == 1


def test_truths_are_read_by_image(tmp_path: Path):
    left, none = (
        {"image_id": "7", "caption": name, "segmentation": rle.of_mask(mask)}
        for name, mask in (("left", LEFT), ("none", LEFT & RIGHT))
    )
    (tmp_path / "truth.json").write_text(json.dumps({"images": [{"id": "7"}], "annotations": [left, none]}))
    truths = Truths(tmp_path / "truth.json")
    assert [(one.text, int(one.mask.sum())) for one in truths.of("7", HW) or []] == [("left", 400)]
    assert truths.of("8", HW) is None
