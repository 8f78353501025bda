"""LabelMe's layout: a JSON file beside each photograph."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import typer

from aas import rle
from aas.export.coco import beside
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph
from aas.export.polygons import parts
from aas.export.writing import write_json

VERSION = "5.5.0"  # of LabelMe's files: the first of those with all keys below


@dataclass(frozen=True, kw_only=True)
class LabelMe(Exporter):
    """LabelMe: NAME.json beside each photograph, polygons with a hole or several parts included.

    The parts of a thing are one group, a hole is cut out by a seam; where --tolerance-px is 0, LabelMe's own fill gives
    the mask back (docs/exports.md). A phrase is its polygons' description. `aas import labelme` reads the folder.
    """

    examples: ClassVar = ("run --out labelme", "run --out labelme --tolerance-px 1")

    tolerance_px: Annotated[
        float, typer.Option(min=0, help="Leave out vertices that are no further from the polygon: easier to edit.")
    ] = 0.0

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        for photograph in photographs:
            photograph.put(self.out, self.link)
            content = labelme_dict(photograph, self.tolerance_px) | {"imagePath": photograph.file_name}
            write_json(self.out / f"{photograph.name}.json", content)
        return []


def labelme_dict(photograph: Photograph, tolerance_px: float = 0.0) -> dict[str, Any]:
    """The content of LabelMe's file; what it does not know itself (`caption`, `score`, …) it keeps."""
    height, width = photograph.size_hw
    shapes = [shape for i, one in enumerate(photograph.found, start=1) for shape in _shapes(one, i, tolerance_px)]
    return {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": photograph.own_name,
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
        "name": photograph.key,
        "question": photograph.question,
        "caption": photograph.caption,
        **photograph.kind,
    }


def _shapes(one: Found, group: int, tolerance_px: float) -> list[dict[str, Any]]:
    """A polygon for each part of a mask."""
    return [
        {
            "label": one.label,
            "points": polygon.tolist(),
            "group_id": group,
            "description": one.phrase,
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
            **beside(one),
        }
        for polygon in parts(rle.decoded(one.mask), tolerance_px)
    ]
