"""Pascal VOC's layout: boxes in XML, classes and objects as PNGs with a palette."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.objects import SHARED, each_pixel_once
from aas.export.photograph import Found, Photograph
from aas.export.writing import element, write_xml
from aas.store.atomic import write_png, write_text

VOID = 255  # in VOC's PNGs, what belongs to nothing and is not counted


@dataclass(frozen=True, kw_only=True)
class Voc(Exporter):
    """Pascal VOC: Annotations/ with boxes, SegmentationClass/ and SegmentationObject/, JPEGImages/, classes.txt.

    A pixel has one class: of masks that overlap, the smallest keeps it. A PNG holds up to 254 classes or objects.
    """

    examples: ClassVar = ("run --out voc --classes classes.txt",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`. Raises ValueError for more classes, or things on one photograph, than a PNG holds."""
        written, n_shared = [], 0
        for photograph in photographs:
            photograph.put(self.out / "JPEGImages", self.link)
            write_xml(self.out / "Annotations" / f"{photograph.name}.xml", annotation(photograph))
            n_shared += self._write_masks(photograph, names)
            written.append(f"{photograph.name}\n")
        for kind in ("Main", "Segmentation"):
            write_text(self.out / "ImageSets" / kind / "train.txt", "".join(written))
        write_text(self.out / "classes.txt", "".join(f"{name}\n" for name in names))
        return [SHARED.format(n_shared)] if n_shared else []

    def _write_masks(self, photograph: Photograph, names: ClassNames) -> bool:
        objects, n_shared = each_pixel_once(photograph.found, photograph.size_hw)
        classes = np.array([0, *(names.number(one.label) + 1 for one in photograph.found)])
        if len(classes) > VOID or len(names) + 1 > VOID:
            raise ValueError(
                f"VOC's PNGs hold {VOID - 1} classes and as many things; here are {len(names)} classes, and "
                f"{len(photograph.found)} things on {photograph.key}: give your own classes with --classes."
            )
        for folder, numbers in (("SegmentationObject", objects), ("SegmentationClass", classes[objects])):
            write_png(self.out / folder / f"{photograph.name}.png", _with_palette(numbers))
        return n_shared > 0


def annotation(photograph: Photograph) -> ElementTree.Element:
    """VOC's XML of one photograph."""
    root, (height, width) = ElementTree.Element("annotation"), photograph.size_hw
    element(root, "folder", "JPEGImages")
    element(root, "filename", photograph.file_name)
    size = element(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        element(size, name, value)
    element(root, "segmented", 1)
    for one in photograph.found:
        _add_object(root, one)
    return root


def _add_object(root: ElementTree.Element, one: Found) -> None:
    thing, (left, top, width, height) = element(root, "object"), one.box_xywh
    for name, value in (("name", one.label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
        element(thing, name, value)
    element(thing, "phrase", one.phrase)
    box = element(thing, "bndbox")  # VOC counts pixels from 1, and the last one belongs to the box
    for name, value in (("xmin", left + 1), ("ymin", top + 1), ("xmax", left + width), ("ymax", top + height)):
        element(box, name, value)


def _with_palette(numbers: np.ndarray) -> Image.Image:
    picture = Image.fromarray(numbers.astype(np.uint8), "P")
    picture.putpalette(_palette())
    return picture


def _palette() -> list[int]:
    """VOC's: the bits of a number, dealt out to red, green and blue from the highest bit of each on."""
    numbers = np.arange(256)
    channels = [sum((numbers >> 3 * i + channel & 1) << 7 - i for i in range(3)) for channel in range(3)]
    return np.stack(channels, axis=1).ravel().tolist()
