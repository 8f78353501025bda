"""COCO's layout: images, categories, and masks as run lengths, which lose nothing."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import typer

from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph
from aas.export.writing import write_json

IMAGES = "images"


@dataclass(frozen=True, kw_only=True)
class Coco(Exporter):
    """COCO dataset: annotations.json with images, categories and masks as run lengths; captions.json; images/.

    The two files are also ground truth: --gt-mask and --gt-caption of `aas eval gcg`, --gt of `aas eval instance`.
    """

    examples: ClassVar = ("run --out coco", "run --out coco --classes classes.txt", "corrected --out truth --name-ids")

    name_ids: Annotated[
        bool, typer.Option(help="Ids of images are their names in the run, as `aas eval` looks for them.")
    ] = False

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        captions: list[dict[str, Any]] = []
        for one in photographs:
            one.put(self.out / IMAGES, self.link)
            photograph = replace(one, id=one.key) if self.name_ids else one
            images.append(image_of(photograph))
            annotations += annotations_of(photograph, names, len(annotations) + 1)
            captions.append(caption_of(photograph, len(captions) + 1))
        write_json(self.out / "captions.json", {"images": images, "annotations": captions})
        write_json(self.out / "annotations.json", dataset(images, annotations, names))
        return []


def dataset(
    images: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]], names: ClassNames
) -> dict[str, Any]:
    """The content of a COCO file."""
    return {"images": images, "annotations": annotations, "categories": categories_of(names)}


def coco_dict(photograph: Photograph) -> dict[str, Any]:
    """A COCO dataset of one photograph."""
    names, image = ClassNames(), image_of(photograph)
    annotations = annotations_of(photograph, names)
    return dataset([image | {"file_name": photograph.own_name}], annotations, names)


def categories_of(names: ClassNames) -> list[dict[str, Any]]:
    """COCO's ids of categories count from 1."""
    return [{"id": i, "name": name, "supercategory": "thing"} for i, name in enumerate(names, start=1)]


def image_of(photograph: Photograph) -> dict[str, Any]:
    """An entry of `images`; `name` is what the run calls it."""
    height, width = photograph.size_hw
    return {
        "id": photograph.id,
        "file_name": photograph.file_name,
        "height": height,
        "width": width,
        "name": photograph.key,
        "question": photograph.question,
        "caption": photograph.caption,
        **photograph.kind,
    }


def annotations_of(photograph: Photograph, names: ClassNames, first_id: int = 1) -> list[dict[str, Any]]:
    """Entries of `annotations`, with ids from `first_id` on."""
    return [
        {
            "id": i,
            "image_id": photograph.id,
            "category_id": names.number(one.label) + 1,
            "segmentation": one.mask,
            "area": one.area,
            "bbox": list(one.box_xywh),
            "iscrowd": 0,
            **beside(one),
        }
        for i, one in enumerate(photograph.found, start=first_id)
    ]


def beside(one: Found) -> dict[str, Any]:
    """What the format does not ask for, and its readers leave alone."""
    known = {
        "score": one.told_score,
        **one.mask_score,
        "point": None if one.point_xy is None else list(one.point_xy),
        "span": None if one.span is None else list(one.span),
    }
    return {"phrase": one.phrase, **{key: value for key, value in known.items() if value is not None}}


def caption_of(photograph: Photograph, number: int) -> dict[str, Any]:
    """An entry of COCO's captions; `labels` as in GranD-f's, a phrase for each mask."""
    labels = [one.phrase for one in photograph.found]
    return {"id": number, "image_id": photograph.id, "caption": photograph.caption, "labels": labels}
