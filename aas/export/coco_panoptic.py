"""COCO's panoptic layout: a PNG for each photograph, whose colours are numbers of segments."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from aas import rle
from aas.export.coco import IMAGES, categories_of, dataset, image_of
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.objects import SHARED, each_pixel_once
from aas.export.photograph import Found, Photograph
from aas.export.writing import write_json
from aas.store.atomic import write_png

MASKS = "panoptic"


@dataclass(frozen=True, kw_only=True)
class CocoPanoptic(Exporter):
    """COCO panoptic: panoptic.json, panoptic/ with a PNG for each photograph, images/.

    A pixel has one segment: of masks that overlap, the smallest keeps it. What is nothing's is 0, "unlabelled".
    """

    examples: ClassVar = ("run --out panoptic --classes classes.txt",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        images, annotations, n_shared = [], [], 0
        for photograph in photographs:
            photograph.put(self.out / IMAGES, self.link)
            numbers, shared = each_pixel_once(photograph.found, photograph.size_hw)
            write_png(self.out / MASKS / f"{photograph.name}.png", Image.fromarray(_colours(numbers)))
            images.append(image_of(photograph))
            annotations.append(_annotation(photograph, numbers, names))
            n_shared += shared > 0
        categories = [category | {"isthing": 1} for category in categories_of(names)]
        content = dataset(images, annotations, names) | {"categories": categories}
        write_json(self.out / "panoptic.json", content)
        return [SHARED.format(n_shared)] if n_shared else []


def _colours(numbers: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: number = red + 256 green + 65536 blue."""
    return np.stack([numbers >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def _annotation(photograph: Photograph, numbers: np.ndarray, names: ClassNames) -> dict[str, Any]:
    left = np.bincount(numbers.ravel(), minlength=len(photograph.found) + 1)
    segments = [_segment(i, one, numbers == i, names) for i, one in enumerate(photograph.found, start=1) if left[i]]
    return {"image_id": photograph.id, "file_name": f"{photograph.name}.png", "segments_info": segments}


def _segment(number: int, one: Found, mask: np.ndarray, names: ClassNames) -> dict[str, Any]:
    x0, y0, x1, y1 = rle.box_xyxy(mask)
    return {
        "id": number,
        "category_id": names.number(one.label) + 1,
        "area": int(mask.sum()),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "iscrowd": 0,
        "phrase": one.phrase,
    }
