"""Label Studio's tasks: brush strokes as predictions, which people correct."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import quote
from xml.etree import ElementTree

import typer

from aas import rle
from aas.export import brush
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph
from aas.export.writing import element, write_json, write_xml

BRUSH, IMAGE = "brush", "image"  # names of the tags in the configuration


@dataclass(frozen=True, kw_only=True)
class LabelStudio(Exporter):
    """Label Studio: tasks.json with brush masks as predictions, config.xml, images/.

    Make a project with config.xml as its labelling interface, serve images/ (local storage, or the address that
    --prefix names), and import tasks.json. `aas import labelstudio` reads what Label Studio exports as JSON.
    """

    examples: ClassVar = (
        "run --out labelstudio",
        "run --out labelstudio --prefix https://example.org/photos/",
    )

    prefix: Annotated[str, typer.Option(help="What stands before a photograph's name in its address.")] = (
        "/data/local-files/?d=images/"
    )

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        tasks = []
        for photograph in photographs:
            photograph.put(self.out / "images", self.link)
            for one in photograph.found:
                names.number(one.label)
            tasks.append(task(photograph, self.prefix))
        write_xml(self.out / "config.xml", configuration(names))
        write_json(self.out / "tasks.json", tasks)
        return []


def configuration(names: Iterable[str]) -> ElementTree.Element:
    """The labelling interface: the photograph, its caption, and a brush for each class."""
    view = ElementTree.Element("View")
    element(view, "Image", name=IMAGE, value="$image", zoom="true")
    labels = element(view, "BrushLabels", name=BRUSH, toName=IMAGE)
    for name in names:
        element(labels, "Label", value=name)
    element(view, "Text", name="words", value="$caption")
    return view


def task(photograph: Photograph, prefix: str = "") -> dict[str, Any]:
    """One photograph with its masks, as `tasks.json` lists them."""
    data = {
        "image": prefix + quote(photograph.file_name if prefix else photograph.own_name),
        "name": photograph.key,
        "question": photograph.question,
        "caption": photograph.caption,
        **photograph.kind,
    }
    result = [_region(one, f"phrase-{i}", photograph.size_hw) for i, one in enumerate(photograph.found, start=1)]
    return {"data": data, "predictions": [{"model_version": "aas", "result": result}]}


def _region(one: Found, region_id: str, size_hw: tuple[int, int]) -> dict[str, Any]:
    score = {} if one.told_score is None else {"score": one.told_score}
    return {
        "id": region_id,
        "type": "brushlabels",
        "from_name": BRUSH,
        "to_name": IMAGE,
        "original_width": size_hw[1],
        "original_height": size_hw[0],
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush.encoded(rle.decoded(one.mask)), "brushlabels": [one.label]},
        "meta": {"text": [one.phrase]},
        **score,
    }
