"""What `aas segment` writes for one image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aas import rle
from aas.choices import ConfidenceKind, Task
from aas.records import Phrase
from aas.store.instances import Detection, InstanceResult, write_instances
from aas.store.results import LabelledPoint, Result, result_of, write_result


@dataclass(frozen=True)
class SegmentResult:
    """One image's result on its way to the writer: of each phrase one mask, or three, packed to bits."""

    task: Task
    path: Path
    image_id: str | int
    image: str | None  # the photograph, where image_id is an expression's
    caption: str
    question: str
    size_hw: tuple[int, int]
    phrases: list[Phrase]
    points_xy: list[tuple[int, int]]
    categories: list[tuple[int | str, str]]
    packed: list[np.ndarray]
    scores: list[list[float]]

    prompt_points: list[tuple[LabelledPoint, ...]] | None = None  # of each phrase all points; None: its one point
    token_probabilities: tuple[float, ...] | None = None
    confidences: tuple[float, ...] | None = None
    confidence_kind: ConfidenceKind | None = None
    left_out: tuple[str, ...] | None = None  # where a confidence is asked for

    def write(self) -> None:
        """Makes run lengths and writes the file."""
        if self.task == "instance":
            write_instances(self.path, self.instances())
        else:
            write_result(self.path, self.result())

    def result(self) -> Result:
        """Of each phrase its first mask."""
        return result_of(
            self.phrases,
            [rle.of_packed(packed, self.size_hw)[0] for packed in self.packed],
            self.points_xy,
            [scores[0] for scores in self.scores],
            self.prompt_points,
            image_id=self.image_id,
            image=self.image,
            question=self.question,
            caption=self.caption,
            token_probabilities=self.token_probabilities,
            confidences=self.confidences,
            confidence_kind=self.confidence_kind,
            left_out=self.left_out,
        )

    def instances(self) -> InstanceResult:
        """Empty masks are dropped, as in the reference."""
        detections = []
        for i, phrase in enumerate(self.phrases):
            for mask, score in zip(rle.of_packed(self.packed[i], self.size_hw), self.scores[i], strict=True):
                if area := rle.area(mask):
                    category = self.categories[i]
                    found = Detection(self.image_id, *category, phrase.text, mask, score, area, self.points_xy[i])
                    detections.append(found)
        return InstanceResult(self.image_id, self.caption, tuple(detections), self.left_out)
