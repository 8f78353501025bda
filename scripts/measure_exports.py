"""What masks lose as polygons: COCO's true masks to YOLO's and LabelMe's polygons and back, by those tools' rules.

    python scripts/measure_exports.py --coco DIR

DIR has annotations/ with `instances_subset_val2017.json` and `panoptic_subset_val2017` (PNGs). Prints a Markdown table
(docs/exports.md).
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from transformers.image_transforms import rgb_to_id

from aas import rle
from aas.export.from_labelme import drawn
from aas.export.photograph import Found
from aas.export.polygons import parts
from aas.export.yolo import line_of

TOLERANCES_PX = (0.0, 0.5, 1.0, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--coco", type=Path, required=True)
    folder = parser.parse_args().coco / "annotations"
    sets = {"instances": list(instances(folder)), "panoptic segments": list(segments(folder))}
    print("| masks | tolerance | YOLO: mean, 5th percentile, least IoU | LabelMe | vertices, median |")
    print("|---|---|---|---|---|")
    for name, masks in sets.items():
        for tolerance in TOLERANCES_PX:
            yolo = [iou(mask, by_yolo(mask, tolerance)) for mask in masks]
            polygons = [parts(mask, tolerance) for mask in masks]
            labelme = [iou(mask, by_labelme(of, mask.shape)) for of, mask in zip(polygons, masks, strict=True)]
            n = np.median([sum(map(len, of)) for of in polygons])
            print(f"| {len(masks)} {name} | {tolerance:g} px | {figures(yolo)} | {figures(labelme)} | {n:.0f} |")


def instances(folder: Path) -> Iterator[np.ndarray]:
    """bool [H, W]: COCO's instances as it draws them."""
    content = json.loads((folder / "instances_subset_val2017.json").read_text())
    sizes = {one["id"]: (one["height"], one["width"]) for one in content["images"]}
    for one in content["annotations"]:
        mask = rle.decoded(rle.compressed(one["segmentation"], sizes[one["image_id"]]))
        if mask.any():
            yield mask


def segments(folder: Path) -> Iterator[np.ndarray]:
    """bool [H, W]: panoptic segments, which have holes where other things stand before them."""
    for path in sorted((folder / "panoptic_subset_val2017").glob("*.png")):
        ids = rgb_to_id(np.array(Image.open(path)))
        yield from (ids == i for i in np.unique(ids) if i)


def by_yolo(mask: np.ndarray, tolerance_px: float) -> np.ndarray:
    """As Ultralytics reads a line: shares times the size, fractions cut off, filled by OpenCV."""
    line = line_of(Found("", "", rle.of_mask(mask)), 0, mask.shape, tolerance_px)
    points = np.array(line.split()[1:], np.float64).reshape(-1, 2) * mask.shape[::-1]
    canvas = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    return canvas.astype(bool)


def by_labelme(polygons: list[np.ndarray], size_hw: tuple[int, int]) -> np.ndarray:
    """As LabelMe draws them."""
    shapes = [drawn("polygon", tuple(map(tuple, polygon.tolist())), None, size_hw) for polygon in polygons]
    return np.any(shapes, axis=0)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def figures(ious: list[float]) -> str:
    if min(ious) == 1:
        return "1, 1, 1"
    return f"{np.mean(ious):.4f}, {np.percentile(ious, 5):.3f}, {min(ious):.2f}"


if __name__ == "__main__":
    main()
