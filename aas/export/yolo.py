"""Ultralytics' YOLO layout for segmentation: a text file for each photograph, a polygon on each line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import typer

from aas import rle
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.objects import each_once
from aas.export.photograph import Found, Photograph
from aas.export.polygons import joined, parts
from aas.store.atomic import write_text

# Readers round a coordinate or cut its fraction off: both find the pixel that was meant.
INSIDE = 0.25


@dataclass(frozen=True, kw_only=True)
class Yolo(Exporter):
    """YOLO segmentation: data.yaml, images/, labels/ with a line `class x y x y …` for each thing.

    Polygons go through the outermost pixels. A line has one polygon: holes and parts are joined by seams. Things that
    several phrases name are written once.
    """

    examples: ClassVar = ("run --out yolo --classes classes.txt",)

    tolerance_px: Annotated[
        float, typer.Option(min=0, help="Leave out vertices that are no further from the polygon.")
    ] = 0.0

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        for photograph in photographs:
            photograph.put(self.out / "images", self.link)
            lines = [
                line_of(one, names.number(one.label), photograph.size_hw, self.tolerance_px)
                for one in each_once(photograph.found)
            ]
            write_text(self.out / "labels" / f"{photograph.name}.txt", "".join(f"{line}\n" for line in lines))
        # JSON's strings are YAML's too. Without `path` the folder of this file is meant.
        classes = "".join(f"  {i}: {json.dumps(name, ensure_ascii=False)}\n" for i, name in enumerate(names))
        write_text(self.out / "data.yaml", f"train: images\nval: images\nnames:\n{classes}" if classes else _NOTHING)
        return []


_NOTHING = "train: images\nval: images\nnames: {}\n"


def line_of(one: Found, number: int, size_hw: tuple[int, int], tolerance_px: float) -> str:
    """A thing's line; coordinates as shares of the image's width and height."""
    polygon = joined(parts(rle.decoded(one.mask), tolerance_px))
    shares = (polygon + INSIDE) / np.array(size_hw[::-1])
    return " ".join([str(number), *(f"{value:.6f}" for value in shares.ravel())])
