"""The largest pixel of an upsampled map: three ways to it, in one run.

    OMP_NUM_THREADS=1 python scripts/bench_peaks.py [--rounds 15]

- full: every pixel by torch's kernel, the reference's way;
- matrices: every pixel by a product of the rows' matrix, the map and the columns' matrix;
- ours: `largest_pixel_xy`, matrices for the columns that a bound leaves, torch's kernel for what rounding leaves.

Milliseconds for one map are medians over as many maps as rounds, whose ways take turns; `times` are the medians of
full over ours and of matrices over ours; `same` counts the maps of which matrices and ours find full's pixel.

Milliseconds of CPU time on one core of a busy machine, smooth maps of 24 x 24 cells: full 4.3, 24 and 222 at 640 x 480,
2 and 12 megapixels, matrices 0.4, 2.3 and 24, ours 0.9, 2.0 and 4.5; a search by halving Bézier curves, which ours took
the place of, 1.7, 3.0 and 6.0. Matrices alone win at 640 x 480, by half a millisecond, and miss a pixel now and then.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np

from aas.geometry import largest_pixel_xy, map_on_image, peak_xy, stretched_view
from aas.geometry.peaks import _bicubic_weights
from aas.records import View

SIZES_HW = {"640 x 480": (480, 640), "2 megapixels": (1200, 1600), "12 megapixels": (3000, 4000)}
GRIDS_HW = [(12, 12), (24, 24), (48, 64)]
Way = Callable[[np.ndarray, View, tuple[int, int]], tuple[int, int]]


def smooth(rng: np.random.Generator, grid_hw: tuple[int, int]) -> np.ndarray:
    return cv2.GaussianBlur(rng.standard_normal(grid_hw, np.float32), (0, 0), 2) * 1e-4


def spiky(rng: np.random.Generator, grid_hw: tuple[int, int]) -> np.ndarray:
    return rng.random(grid_hw, np.float32) ** 8 * 1e-3


def by_full_upsampling(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    return peak_xy(map_on_image(grid_map, view, image_hw))


def by_matrices(grid_map: np.ndarray, view: View, image_hw: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (_bicubic_weights(*sides) for sides in zip(view.size_hw, image_hw, strict=True))
    return peak_xy(rows @ (grid_map @ columns.T))


WAYS: dict[str, Way] = {"full": by_full_upsampling, "matrices": by_matrices, "ours": largest_pixel_xy}


def measured(maps: list[np.ndarray], image_hw: tuple[int, int]) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Milliseconds of each way for each map but the first, which warms up, and how often it finds full's pixel."""
    milliseconds: dict[str, list[float]] = {name: [] for name in WAYS}
    same = dict.fromkeys(WAYS, 0)
    for grid_map in maps:
        view = stretched_view(grid_map.shape, image_hw)
        found = {}
        for name, way in WAYS.items():
            begin = time.perf_counter()
            found[name] = way(grid_map, view, image_hw)
            milliseconds[name].append((time.perf_counter() - begin) * 1e3)
            same[name] += found[name] == found["full"]
    return {name: times[1:] for name, times in milliseconds.items()}, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    others = [name for name in WAYS if name != "ours"]
    rng = np.random.default_rng(0)
    print(
        f"{'image':14}{'grid':8}{'map':8}" + "".join(f"{name:>10}" for name in WAYS) + "  times: " + ", ".join(others)
    )
    for size, image_hw in SIZES_HW.items():
        for grid_hw in GRIDS_HW:
            for kind in (smooth, spiky):
                milliseconds, same = measured([kind(rng, grid_hw) for _ in range(args.rounds + 1)], image_hw)
                row = f"{size:14}{grid_hw[0]}x{grid_hw[1]:<5}{kind.__name__:8}"
                row += "".join(f"{median(milliseconds[name]):10.2f}" for name in WAYS) + "  "
                for name in others:
                    ratios = np.divide(milliseconds[name], milliseconds["ours"])
                    row += f"{median(ratios):8.1f}"
                counts = ", ".join(f"{name} {same[name]}" for name in WAYS if name != "full")
                print(f"{row}  same of {args.rounds + 1}: {counts}", flush=True)


if __name__ == "__main__":
    main()
