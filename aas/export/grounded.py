"""One grounding in the formats of other tools: what `Grounding` has of them."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aas import registry
from aas.export.names import ClassNames
from aas.export.photograph import Photograph

if TYPE_CHECKING:
    from supervision import Detections


class Exportable(ABC):
    """What has a photograph and masks of phrases. A phrase's class is its words without article, in small letters."""

    @abstractmethod
    def photograph(self) -> Photograph:
        """As exporters take it."""

    def export(self, name: str, folder: str | Path, **options: Any) -> Path:
        """Write the format `name` of `aas export` into `folder`, with the photograph; `options`: the format's own, as
        `tolerance_px`. Returns the folder. Raises ValueError for an unknown format, and a folder that is not empty."""
        from aas.export.run import check_new

        exporter = registry.load(registry.EXPORTS, name, "format")(out=Path(folder), **options)
        check_new(exporter.out)
        exporter.write([self.photograph()], ClassNames())
        return exporter.out

    def to_coco(self) -> dict[str, Any]:
        """A COCO dataset of this photograph: images, annotations with run lengths, categories."""
        from aas.export.coco import coco_dict

        return coco_dict(self.photograph())

    def to_labelme(self, tolerance_px: float = 0.0) -> dict[str, Any]:
        """The content of LabelMe's file, with polygons; see `aas export labelme`."""
        from aas.export.labelme import labelme_dict

        return labelme_dict(self.photograph(), tolerance_px)

    def to_labelstudio(self) -> dict[str, Any]:
        """A task of Label Studio's with brush masks as predictions; its `data["image"]` is the file's name."""
        from aas.export.labelstudio import task

        return task(self.photograph())

    def to_glamm(self) -> dict[str, Any]:
        """GLaMM's caption with `<p> … </p> [SEG]` around phrases (`marked_caption`) and a mask for each."""
        from aas.export.glamm import entry

        return entry(self.photograph())

    def to_supervision(self) -> "Detections":
        """supervision's `Detections`: boxes, masks, confidences, classes; `data["phrase"]` has the words. Needs the
        package supervision."""
        from aas.export.detections import detections

        return detections(self.photograph())
