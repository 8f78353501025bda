"""The deletion test: what a model loses of an answer when the cells that a map marks are greyed, against random ones
(after EAGLE, arXiv 2509.22496, and AnswerMap, which take away the top 12 %)."""

import numpy as np

from aas.geometry import cell_coverage, pixels_of_cells
from aas.records import View

SHARE = 0.12  # of the cells
GREY = 127


def _deletable(view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """Numbers of the cells that lie on the image, at least in part."""
    return np.flatnonzero(cell_coverage(view, (0, 0, image_hw[1], image_hw[0])))


def _cells(view: View, numbers: np.ndarray) -> np.ndarray:
    found = np.zeros(view.size_hw, bool)
    found.flat[numbers] = True
    return found


def largest_cells(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> np.ndarray:
    """Bool [h, w]: of the cells on the image the SHARE, rounded up, where `grid_map` [h, w] is largest; of equal ones
    the first."""
    there = _deletable(view, image_hw)
    order = np.argsort(-grid_map.ravel()[there], kind="stable")
    return _cells(view, there[order[: int(np.ceil(SHARE * len(there)))]])


def random_cells(view: View, image_hw: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Bool [h, w]: as many cells, drawn."""
    return largest_cells(generator.random(view.size_hw), view, image_hw)


def greyed(image: np.ndarray, cells: np.ndarray, view: View) -> np.ndarray:
    """`image` uint8 [H, W, 3], the pixels of these `cells` bool [h, w] being grey."""
    found = image.copy()
    found[pixels_of_cells(cells, view, (image.shape[0], image.shape[1]))] = GREY
    return found
