"""FiftyOne's dataset folder: phrases as detections with masks, as its RefCOCO datasets have them."""

import base64
import io
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from aas import rle
from aas.export.exporter import Exporter
from aas.export.names import ClassNames
from aas.export.photograph import Found, Photograph
from aas.export.writing import write_json

DATA = "data"
NUDGE = 0.001  # of a pixel: FiftyOne cuts fractions off, and a share times the width may fall short of the pixel


@dataclass(frozen=True, kw_only=True)
class FiftyOne(Exporter):
    """FiftyOne dataset: samples.json, metadata.json, data/; fields `caption`, `question`, `phrases` (detections).

    `fiftyone.Dataset.from_dir(OUT, dataset_type=fiftyone.types.FiftyOneDataset)` loads it.
    """

    examples: ClassVar = ("run --out fiftyone",)

    def write(self, photographs: Iterable[Photograph], names: ClassNames) -> list[str]:
        """See `Exporter`."""
        samples = []
        for photograph in photographs:
            photograph.put(self.out / DATA, self.link)
            samples.append(sample(photograph, photograph.file_name))
        # Without a version and a list of fields FiftyOne finds out what the samples have.
        write_json(self.out / "metadata.json", {"name": self.out.name, "media_type": "image", "info": {}})
        write_json(self.out / "samples.json", {"samples": samples})
        return []


def sample(photograph: Photograph, file_name: str) -> dict[str, Any]:
    """An entry of samples.json."""
    return {
        "filepath": f"{DATA}/{file_name}",
        "tags": [],
        "name": photograph.key,
        "question": photograph.question,
        "caption": photograph.caption,
        **photograph.kind,
        "phrases": {"_cls": "Detections", "detections": [_detection(one) for one in photograph.found]},
    }


def _detection(one: Found) -> dict[str, Any]:
    """A box as shares of the image, and the mask inside it."""
    (height, width), (left, top, box_width, box_height) = one.mask["size"], one.box_xywh
    inside = rle.decoded(one.mask)[top : top + box_height, left : left + box_width]
    score = {} if one.told_score is None else {"confidence": one.told_score}
    return {
        "_cls": "Detection",
        "label": one.label,
        "bounding_box": [(left + NUDGE) / width, (top + NUDGE) / height, box_width / width, box_height / height],
        "mask": {"$binary": {"base64": _packed(inside), "subType": "00"}},
        "phrase": one.phrase,
        **score,
        **one.mask_score,
    }


def _packed(array: np.ndarray) -> str:
    """NumPy's file of an array, deflated."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return base64.b64encode(zlib.compress(content.getvalue())).decode("ascii")
