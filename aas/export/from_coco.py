"""Masks from a COCO file, of `aas export coco` or of any tool that writes COCO's layout."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from aas import rle
from aas.datasets.coco import read_lists
from aas.export.coco import IMAGES
from aas.export.importer import Importer, Read, found_of, photograph_of
from aas.export.photograph import Found, Photograph
from aas.rle import side_of
from aas.spellings import id_text


@dataclass(frozen=True, kw_only=True)
class FromCoco(Importer):
    """Masks of a COCO file: run lengths or polygons, as COCO draws them.

    Keeps phrases, scores, points and captions where the tool kept them; a phrase that is lost becomes the category.
    """

    examples: ClassVar = ("coco/annotations.json --out corrected", "from_cvat.json --run run --out corrected")

    def entries(self, notes: list[str]) -> Iterator[tuple[str, Read]]:
        """See `Importer`."""
        path = self.source / "annotations.json" if self.source.is_dir() else self.source
        content = read_lists(path, "images", "annotations", "categories")
        categories = {id_text(one.get("id")): one.get("name") for one in content["categories"]}
        of_image = defaultdict(list)
        for one in content["annotations"]:
            of_image[id_text(one.get("image_id"))].append(one)
        for image in content["images"]:
            name = str(image.get("file_name") or image.get("id"))
            annotations = of_image.pop(id_text(image.get("id")), [])
            yield name, partial(self._photograph, path.parent, image, name, annotations, categories)
        if of_image:
            notes.append(f"{sum(map(len, of_image.values()))} annotations are of images that the file does not list")

    def _photograph(
        self,
        folder: Path,
        image: Mapping[str, Any],
        name: str,
        annotations: Sequence[Mapping[str, Any]],
        categories: Mapping[str | None, Any],
    ) -> Photograph:
        size_hw = (side_of(image.get("height")) or 0, side_of(image.get("width")) or 0)
        found = tuple(_found(one, size_hw, categories) for one in annotations)
        return photograph_of(image, name, self.image_file(folder, name, IMAGES), size_hw, found)


def _found(entry: Mapping[str, Any], size_hw: tuple[int, int], categories: Mapping[str | None, Any]) -> Found:
    mask = rle.compressed(entry.get("segmentation"), size_hw)
    label = categories.get(id_text(entry.get("category_id"))) or "thing"
    return found_of(entry, entry.get("phrase") or entry.get("caption"), label, mask)
