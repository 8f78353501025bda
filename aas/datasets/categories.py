"""COCO's instances by the names of their categories: a photograph's text names each category once, "dog. bench.", and
stands for all that is there of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from aas.datasets.coco import read_lists
from aas.datasets.expressions import Expression, ExpressionDataset, Expressions, Target, listed, mask_of, what_is_wrong
from aas.datasets.sources import name_of
from aas.rle import side_of, union
from aas.spellings import id_text

Entry = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Categories(ExpressionDataset):
    """COCO's instances: the name of each category that a photograph shows, and all that is there of it."""

    examples: ClassVar = ("--annotations instances_val2017.json",)

    annotations: Annotated[Path, typer.Option(help="COCO's instances_val2017.json, or any file of its layout.")]

    def read(self) -> Expressions:
        """One `Expression` for each photograph with annotations, in the order of the file; so are its categories."""
        content = read_lists(self.annotations, "images", "annotations", "categories")
        names = {id_text(one.get("id")): one.get("name") for one in content["categories"]}
        images = {id_text(one.get("id")): one for one in content["images"]}
        problems: list[str] = []
        shown = _by_image(content["annotations"], images, names, problems)
        return Expressions([_expression(images[key], shown[key], self.annotations) for key in shown], problems)


def _by_image(
    entries: Sequence[Entry],
    images: Mapping[str | None, Entry],
    names: Mapping[str | None, Any],
    problems: list[str],
) -> dict[str | None, dict[str, list[Any]]]:
    """Image id -> name -> segmentations, in the order of the images; what cannot be used becomes a problem."""
    found: dict[str | None, dict[str, list[Any]]] = defaultdict(dict)
    for entry in entries:
        image, name = id_text(entry.get("image_id")), names.get(id_text(entry.get("category_id")))
        try:
            if image is None or image not in images:
                raise ValueError("its image is not in the file")
            if not isinstance(name, str) or not name.strip():
                raise ValueError("its category has no name")
            found[image].setdefault(name.strip(), []).append(entry["segmentation"])
        except (KeyError, ValueError) as error:
            problems.append(f"annotation {id_text(entry.get('id'))}: {what_is_wrong(error)}")
    return {key: found[key] for key in images if key in found}


def _expression(image: Entry, shown: Mapping[str, list[Any]], path: Path) -> Expression:
    text, spans = listed(list(shown))
    return Expression(
        str(id_text(image["id"])), name_of(dict(image), path), text, partial(_targets, image, shown), spans
    )


def _targets(image: Entry, shown: Mapping[str, list[Any]]) -> list[Target]:
    """One mask for each name: all of its annotations together, crowds too."""
    height, width = (side_of(image.get(name)) for name in ("height", "width"))
    if height is None or width is None:
        raise ValueError(f"its image is {image.get('height')!r} x {image.get('width')!r} pixels large")
    return [Target(union([mask_of(one, height, width) for one in parts])) for parts in shown.values()]
