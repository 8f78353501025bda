"""Masks from LabelMe's files."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from aas import rle
from aas.datasets.sources import read_json
from aas.export.importer import Importer, Read, found_of, photograph_of, size_of
from aas.export.photograph import Photograph
from aas.images.files import read_bytes
from aas.store import values

NO_AREA = ("line", "linestrip", "point", "points")  # shapes that are no masks


@dataclass(frozen=True, kw_only=True)
class FromLabelMe(Importer):
    """Masks of LabelMe's files, of a folder or of one: polygons, rectangles, circles and masks, as LabelMe draws them.

    Shapes of one label and group are one thing; its phrase is the first shape's description, else the label.
    """

    examples: ClassVar = ("labelme/ --out corrected",)

    def entries(self, notes: list[str]) -> Iterator[tuple[str, Read]]:
        """See `Importer`."""
        paths = sorted(self.source.glob("*.json")) if self.source.is_dir() else [self.source]
        for path in paths:
            yield path.name, partial(self._photograph, path, notes)

    def _photograph(self, path: Path, notes: list[str]) -> Photograph:
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise ValueError("it is no file of LabelMe's: it has no list `shapes`")
        size_hw = size_of(content.get("imageHeight"), content.get("imageWidth"), "it")
        things: dict[Any, list[Mapping[str, Any]]] = {}
        for i, shape in enumerate(content["shapes"]):
            if shape.get("shape_type") in NO_AREA:
                notes.append(f"{path.name}: a {shape['shape_type']} has no area and was left out")
                continue
            group = shape.get("group_id")
            things.setdefault((shape.get("label"), i if group is None else ("group", group)), []).append(shape)
        found = tuple(
            found_of(shapes[0], shapes[0].get("description"), label, _mask_of(shapes, size_hw))
            for (label, _), shapes in things.items()
        )
        image = self.image_file(path.parent, PureWindowsPath(content.get("imagePath") or "").as_posix())
        return photograph_of(content, path.name, image, size_hw, found)


def _mask_of(shapes: list[Mapping[str, Any]], size_hw: tuple[int, int]) -> rle.Rle:
    mask = np.zeros(size_hw, bool)
    for shape in shapes:
        points = values.named("points", shape.get("points"), lambda value: values.listed(value, values.point_xy))
        mask |= drawn(shape.get("shape_type") or "polygon", points, shape.get("mask"), size_hw)
    return rle.of_mask(mask)


def drawn(kind: str, points: tuple[tuple[float, float], ...], mask: Any, size_hw: tuple[int, int]) -> np.ndarray:
    """The bool mask [H, W] of a shape, by the rules of LabelMe's `shape_to_mask`: pixels that its outline touches
    belong to it. `mask`: of the kind `mask`, its PNG in base64, whose corners are the points."""
    if kind == "mask":
        return _placed(mask, points, size_hw)
    canvas = Image.new("L", size_hw[::-1])
    draw = ImageDraw.Draw(canvas)
    if kind in ("polygon", "oriented_rectangle"):
        if len(points) > 2:
            draw.polygon(points, outline=1, fill=1)
    elif kind in ("rectangle", "circle") and len(points) == 2:
        (x0, y0), (x1, y1) = points
        if kind == "circle":
            radius = ((x0 - x1) ** 2 + (y0 - y1) ** 2) ** 0.5
            draw.ellipse((x0 - radius, y0 - radius, x0 + radius, y0 + radius), outline=1, fill=1)
        else:
            draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=1, fill=1)
    else:
        raise ValueError(f"a shape of the kind {kind!r} with {len(points)} points is not known")
    return np.asarray(canvas, bool)


def _placed(mask: Any, points: tuple[tuple[float, float], ...], size_hw: tuple[int, int]) -> np.ndarray:
    try:
        inside = read_bytes(base64.b64decode(mask, validate=True), "its PNG")[..., 0] > 0
    except (binascii.Error, TypeError) as error:
        raise ValueError("a mask is no PNG in base64") from error
    if len(points) != 2:
        raise ValueError("a mask has not two corners")
    left, top = (int(value) for value in points[0])
    whole = np.zeros(size_hw, bool)
    target = whole[max(top, 0) : top + inside.shape[0], max(left, 0) : left + inside.shape[1]]
    if min(left, top) < 0 or target.shape != inside.shape:
        raise ValueError("a mask goes beyond its photograph")
    target[:] = inside
    return whole
