"""How the embedded models are judged: edges, words, intervals."""

import numpy as np
import pytest
from answer_figures import answer_figures, interval
from boundary import boundary_f, edge


def square(y: int, x: int, side: int = 40) -> np.ndarray:
    mask = np.zeros((640, 640), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def by_hand(mask: np.ndarray, truth: np.ndarray, tolerance: float) -> float:
    ours, theirs = (np.argwhere(edge(m)).astype(float) for m in (mask, truth))
    distance = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(-1))
    precision, recall = (distance.min(1) <= tolerance).mean(), (distance.min(0) <= tolerance).mean()
    return 2 * precision * recall / (precision + recall)


def test_edges_within_two_pixels_are_right():
    truth = square(100, 200)
    assert edge(truth).sum() == 4 * 39
    assert boundary_f(truth, truth) == boundary_f(square(102, 200), truth) == 1
    for shift in (3, 7, 20):
        assert boundary_f(square(100, 200 + shift), truth) == pytest.approx(by_hand(square(100, 200 + shift), truth, 2))
    assert boundary_f(square(400, 400), truth) == 0
    assert boundary_f(square(103, 200)[::2, ::2], truth[::2, ::2]) < 1  # one pixel of a picture half as large
    everything, nothing = np.ones((9, 9), bool), np.zeros((9, 9), bool)
    assert boundary_f(everything, everything) == 1 and boundary_f(nothing, np.eye(9) > 0) == 0


def test_words_of_answers_are_counted_against_all_captions():
    captions = {1: ["A dog on a red bench.", "The dog sits.", "Dogs and a ball."], 2: ["Two cats.", "Cats."]}
    figures = answer_figures({1: "A dog with a ball and a hat.", 2: "A cat."}, captions)
    assert figures["words_right"]["mean"] == pytest.approx(3 / 4)  # dog, ball, cat of dog, ball, hat, cat
    assert figures["words_found"]["mean"] == 1  # dog and cat, of two captions each
    assert figures["cider_d"]["n"] == 2 and figures["cider_d"]["mean"] > 0


def test_intervals_hold_their_mean():
    figure = interval([0.0, 2.0, 1.0, 0.0], [1, 2, 1, 0])
    assert figure["mean"] == pytest.approx(0.75) and 0 <= figure["low"] <= 0.75 <= figure["high"] <= 1
