"""What `aas segment` writes for one image, and the process that writes it."""

import json
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from aas import rle
from aas.records import Phrase
from aas.stages.segment_arguments import Task
from aas.store.atomic import write_text

MAX_WAITING_WRITES = 16


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
    categories: list[tuple[int, str]]
    packed: list[np.ndarray]
    scores: list[list[float]]

    def write(self) -> None:
        content = self.instances() if self.task == "instance" else self.gcg()
        write_text(self.path, json.dumps(content, ensure_ascii=False) + "\n")

    def gcg(self) -> dict[str, Any]:
        """`covers_point`: whether the mask holds the point that was asked about; a segmenter may miss it."""
        masks = [rle.of_packed(packed, self.size_hw)[0] for packed in self.packed]
        return {
            "image_id": self.image_id,
            **({} if self.image is None else {"image": self.image}),
            "question": self.question,
            "caption": self.caption,
            "phrases": [phrase.text for phrase in self.phrases],
            "pred_masks": masks,
            "points": [list(point) for point in self.points_xy],
            "scores": [score[0] for score in self.scores],
            "spans": [list(phrase.span) for phrase in self.phrases],
            "token_indices": [list(phrase.token_indices) for phrase in self.phrases],
            "covers_point": [rle.covers(*both) for both in zip(masks, self.points_xy, strict=True)],
        }

    def instances(self) -> dict[str, Any]:
        """Without ids, which are given when all images are merged. Empty masks are dropped, as in the reference."""
        detections = []
        for i, phrase in enumerate(self.phrases):
            for mask, score in zip(rle.of_packed(self.packed[i], self.size_hw), self.scores[i], strict=True):
                area = rle.area(mask)
                if area:
                    detections.append(
                        {
                            "image_id": self.image_id,
                            "category_id": self.categories[i][0],
                            "category_name": self.categories[i][1],
                            "noun_phrase": phrase.text,
                            "segmentation": mask,
                            "score": score,
                            "iscrowd": 0,
                            "area": area,
                            "point": list(self.points_xy[i]),
                        }
                    )
        return {"image_id": self.image_id, "caption": self.caption, "detections": detections}


class Writer:
    """Makes run lengths and writes, here or in another process."""

    def __init__(self, in_process: bool):
        self.pool = ProcessPoolExecutor(1, get_context("fork")) if in_process else None
        self.waiting: deque[Future] = deque()
        if self.pool:
            self.pool.submit(int).result()  # starts it now, while this process has few threads

    def __enter__(self) -> "Writer":
        return self

    def write(self, result: SegmentResult) -> None:
        if self.pool is None:
            result.write()
            return
        self.waiting.append(self.pool.submit(result.write))
        while len(self.waiting) > MAX_WAITING_WRITES or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()

    def __exit__(self, kind: object, *_: object) -> None:
        if self.pool is None:
            return
        try:
            while self.waiting and kind is None:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
