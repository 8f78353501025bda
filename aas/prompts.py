"""From a phrase's map to a prompt for the segmenter."""

import numpy as np

from aas.geometry import map_on_image, peak_xy
from aas.records import View


def point_prompt(phrase_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    """`point_xy`: the pixel where the map, upsampled bicubically to the image, is largest."""
    return peak_xy(map_on_image(phrase_map, view, image_hw))
