"""CVAT's XML for images, version 1.1, with masks as run lengths."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar
from xml.etree import ElementTree

import numpy as np

from aas import rle
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph
from aas.export.writing import element, write_xml


@dataclass(frozen=True, kw_only=True)
class Cvat(Exporter):
    """CVAT for images 1.1: annotations.xml with masks, images/.

    Make a task of images/ whose labels have a text attribute `phrase`, and upload annotations.xml.
    """

    examples: ClassVar = ("run --out cvat --classes classes.txt",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        images: list[ElementTree.Element] = []
        for photograph in photographs:
            photograph.put(self.out / "images", self.link)
            images.append(_image(photograph, len(images), names))
        root = ElementTree.Element("annotations")
        element(root, "version", "1.1")
        _add_labels(element(element(root, "meta"), "task"), names, len(images))
        root.extend(images)
        write_xml(self.out / "annotations.xml", root)
        return []


def _add_labels(task: ElementTree.Element, names: ClassNames, n_images: int) -> None:
    for tag, text in (("name", "aas"), ("size", n_images), ("mode", "annotation")):
        element(task, tag, text)
    labels = element(task, "labels")
    for name in names:
        label = element(labels, "label")
        element(label, "name", name)
        attribute = element(element(label, "attributes"), "attribute")
        described = (("name", "phrase"), ("mutable", "False"), ("input_type", "text"), ("default_value", ""))
        for tag, text in (*described, ("values", "")):
            element(attribute, tag, text)


def _image(photograph: Photograph, number: int, names: ClassNames) -> ElementTree.Element:
    height, width = photograph.size_hw
    about = {"id": str(number), "name": photograph.file_name, "width": str(width), "height": str(height)}
    image = ElementTree.Element("image", about)
    for one in photograph.found:
        names.number(one.label)
        _add_mask(image, one)
    return image


def _add_mask(image: ElementTree.Element, one: Found) -> None:
    left, top, width, height = one.box_xywh
    inside = rle.decoded(one.mask)[top : top + height, left : left + width]
    runs = ", ".join(map(str, row_runs(inside)))
    where = {"left": left, "top": top, "width": width, "height": height, "z_order": 0}
    mask = element(image, "mask", label=one.label, source="auto", occluded=0, rle=runs, **where)
    element(mask, "attribute", one.phrase, name="phrase")


def row_runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs of a bool mask [h, w] along its rows, first of zeros."""
    return rle.runs(rle.of_mask(mask.T)).tolist()
