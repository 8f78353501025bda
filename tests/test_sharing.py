"""Which phrases share one mask."""

import numpy as np
import pytest

from aas.records import GroundedPhrase, Phrase
from aas.view import sharing
from aas.view.sharing import thing_of_phrases, things


def phrase(words: str, mask: np.ndarray, *points: tuple[int, int, int]) -> GroundedPhrase:
    places, labels = tuple((x, y) for x, y, _ in points), tuple(label for *_, label in points)
    return GroundedPhrase(
        Phrase(words, (0, 1), (0, 1), ()), np.zeros((1, 1), np.float32), (3, 4), mask, 0.5, places, labels
    )


def strip(n_pixels: int, start: int = 0) -> np.ndarray:
    """bool [10, 100]: that many pixels of one long line."""
    mask = np.zeros(1000, bool)
    mask[start : start + n_pixels] = True
    return mask.reshape(10, 100)


def test_equal_masks_and_nearly_equal_ones_are_one_thing():
    phrases = [
        phrase(f"p{n}", mask) for n, mask in enumerate([strip(200), strip(500), strip(191), strip(189), strip(200, 6)])
    ]
    shown = things(phrases)
    # IoU with the first: 191 / 200 = 0.955, 189 / 200 = 0.945, 194 / 206 = 0.942
    assert [(thing.phrases, thing.colour) for thing in shown] == [((0, 2), 0), ((1,), 1), ((3,), 2), ((4,), 3)]
    assert {i: thing.colour for i, thing in thing_of_phrases(shown).items()} == {0: 0, 2: 0, 1: 1, 3: 2, 4: 3}
    assert things([]) == []


def test_every_mask_is_held_against_the_first_of_a_thing_and_empty_ones_share_nothing():
    # Each is like the one before it; the last is not like the first.
    chain = [phrase("it", strip(200, start)) for start in (0, 4, 8)]
    assert [thing.phrases for thing in things(chain)] == [(0, 1), (2,)]
    empty = [phrase("it", strip(0)) for _ in range(2)]
    assert [thing.phrases for thing in things(empty)] == [(0,), (1,)]


def test_pixels_are_compared_only_where_areas_allow_it(monkeypatch: pytest.MonkeyPatch):
    compared = []
    iou = sharing._iou
    monkeypatch.setattr(sharing.np, "count_nonzero", lambda mask: compared.append(mask) or int(mask.sum()))
    things([phrase("it", strip(10 * 2**n)) for n in range(6)])
    assert len(compared) == 6 and iou is sharing._iou  # their areas alone


def test_words_and_points_of_a_thing():
    phrases = [
        phrase("a man", strip(200), (5, 1, 1), (7, 2, 1)),
        phrase("the player", strip(200), (7, 2, 1), (5, 1, 0), (90, 9, 0)),
        phrase("a man", strip(200)),
    ]
    (thing,) = things(phrases)
    assert thing.words(phrases) == "a man · the player"
    assert thing.points(phrases) == [((5, 1), 1), ((7, 2), 1), ((90, 9), 0), ((3, 4), 1)]
