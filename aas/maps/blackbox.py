"""Where a model that shows nothing inside says that a thing is, asked band by band."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NoReturn

import numpy as np
from torch import Tensor

from aas.captured import Captured
from aas.maps.source import Source
from aas.records import Answer, AttentionMaps, Phrase, View

N_BANDS = 8
RED, TINT = (230, 30, 40), 0.35  # of a band, and how much of it


class Blackbox(Source):
    """Yes and no about K rows and K columns of the image (`blackbox:8`), phrase by phrase: nothing inside is needed.

    M[i, j] = p(yes | row i) p(yes | column j), p of the first word of the answer to "Is PHRASE in the red band?" about
    the image with that band tinted (AnswerMap). It has a grid of K x K cells of its own, and costs 2 K passes a phrase.
    """

    def __init__(self, argument: str = ""):
        if argument and not (argument.isdigit() and 2 <= int(argument) <= 64):
            raise ValueError(f"--maps blackbox:{argument}: give a number of bands from 2 to 64, like blackbox:8.")
        self.n_bands = int(argument or N_BANDS)

    def needs(self, n_layers: int, n_heads: int) -> NoReturn:
        raise ValueError("blackbox asks about phrases, which `aas ground` and Grounder find: it is theirs alone")

    def __call__(self, captured: Captured) -> Tensor:
        raise NotImplementedError("nothing is captured for it")

    def views(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The image uint8 [H, W, 3] with each row's band tinted, then each column's."""
        height, width = pixels.shape[:2]
        rows, columns = ([side * i // self.n_bands for i in range(self.n_bands + 1)] for side in (height, width))
        boxes = [(0, a, width, b) for a, b in pairwise(rows)]
        boxes += [(a, 0, b, height) for a, b in pairwise(columns)]
        return [_tinted(pixels, box) for box in boxes]

    def question(self, phrase: str) -> str:
        """What is asked about each of the views."""
        return f"Is {phrase} in the red band of the image? Answer with yes or no."

    def maps(self, answer: Answer, phrases: Sequence[Phrase], yes: np.ndarray, view: View) -> AttentionMaps:
        """Each phrase's map for all of its tokens. `yes` float [phrases, 2 K]: how likely each answer is yes."""
        maps = np.zeros((len(answer.token_ids), self.n_bands, self.n_bands), np.float32)
        for phrase, (rows, columns) in zip(phrases, yes.reshape(-1, 2, self.n_bands), strict=True):
            maps[list(phrase.token_indices)] = rows[:, None] * columns
        return AttentionMaps(maps, view, source=f"blackbox:{self.n_bands}")


def _tinted(pixels: np.ndarray, box_xyxy: tuple[int, int, int, int]) -> np.ndarray:
    x0, y0, x1, y1 = box_xyxy
    view = pixels.copy()
    band = view[y0:y1, x0:x1]
    band[:] = (band * (1 - TINT) + np.array(RED) * TINT).round()
    return view
