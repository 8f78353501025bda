"""A dataset folder for Hugging Face's `datasets`, which can be pushed to the Hub as it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from aas import rle
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Photograph
from aas.export.writing import json_line
from aas.store.atomic import write_png, write_text

IMAGES, MASKS = "images", "masks"


@dataclass(frozen=True, kw_only=True)
class HuggingFace(Exporter):
    """Hugging Face dataset: metadata.jsonl, images/, masks/ with a PNG for each phrase.

    `datasets.load_dataset("imagefolder", data_dir=OUT)` gives rows of image, question, caption, phrases, labels,
    scores, masks and, where the run has them, confidences.
    """

    examples: ClassVar = ("run --out dataset",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        lines = []
        for photograph in photographs:
            photograph.put(self.out / IMAGES, self.link)
            for name, one in zip(mask_names(photograph), photograph.found, strict=True):
                write_png(self.out / name, Image.fromarray(rle.decoded(one.mask)))
            lines.append(json_line(row(photograph)))
        write_text(self.out / "metadata.jsonl", "".join(lines))
        return []


def row(photograph: Photograph) -> dict[str, Any]:
    """A line of metadata.jsonl; files whose key ends in `file_name` or `file_names` become images."""
    values = [one.confidence for one in photograph.found]
    confidences = {"confidences": values, **photograph.kind} if photograph.kind else {}
    return {
        "file_name": f"{IMAGES}/{photograph.file_name}",
        "name": photograph.key,
        "question": photograph.question,
        "caption": photograph.caption,
        "phrases": [one.phrase for one in photograph.found],
        "labels": [one.label for one in photograph.found],
        "scores": [one.score for one in photograph.found],
        **confidences,
        "masks_file_names": mask_names(photograph),
    }


def mask_names(photograph: Photograph) -> list[str]:
    """Of each phrase the file of its mask."""
    return [f"{MASKS}/{photograph.name}-{i}.png" for i in range(1, len(photograph.found) + 1)]
