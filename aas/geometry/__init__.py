"""Pixels and grids: the only place with their arithmetic.

`views.py`: the rectangle of the image that a grid of tokens covers; `maps.py`: between cells and pixels; `peaks.py`:
where a map is largest. A pixel (x, y) is the square [x, x+1) x [y, y+1); boxes are `box_xyxy` in those coordinates;
sizes are `size_hw`.
"""

from aas.geometry.maps import cell_coverage, cells_of_mask, combined_map, map_on_image, otsu_mask, pixels_of_cells
from aas.geometry.peaks import centroid_xy, deepest_xy, largest_pixel_xy, peak_xy, peaks_xy, region_xy
from aas.geometry.views import (
    canvas_view,
    centre_crop_view,
    letterboxed_view,
    long_side_padded_view,
    padded_view,
    pan_and_scan_views,
    placed_view,
    scaled_view,
    stitched_tiles,
    stretched_view,
    unpadded_view,
    without_newlines,
    without_rest,
)

__all__ = [
    "canvas_view",
    "cell_coverage",
    "cells_of_mask",
    "centre_crop_view",
    "centroid_xy",
    "combined_map",
    "deepest_xy",
    "largest_pixel_xy",
    "letterboxed_view",
    "long_side_padded_view",
    "map_on_image",
    "otsu_mask",
    "padded_view",
    "pan_and_scan_views",
    "peak_xy",
    "peaks_xy",
    "pixels_of_cells",
    "placed_view",
    "region_xy",
    "scaled_view",
    "stitched_tiles",
    "stretched_view",
    "unpadded_view",
    "without_newlines",
    "without_rest",
]
