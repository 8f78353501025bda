"""Panoptic narrative grounding (arXiv 2109.04988): captions whose noun phrases stand for panoptic segments of COCO.

`png_coco_val2017.json` is a list of narratives: `image_id`, `caption`, and `segments`, the caption cut into
utterances, each with the ids of the panoptic segments it stands for, if any. The segments are COCO's
`panoptic_val2017.json` and its folder of PNG files, where a pixel's segment is R + 256 G + 256² B.
"""

from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import typer

from aas import rle
from aas.datasets.expressions import Expression, ExpressionDataset, Expressions, Span, Target, what_is_wrong
from aas.datasets.sources import read_json
from aas.images.pixels import opened
from aas.phrases.spacing import carried_over
from aas.spellings import flag_of, whole_of


@dataclass(frozen=True, kw_only=True)
class Png(ExpressionDataset):
    """Panoptic narrative grounding: captions with the characters of their phrases."""

    metrics: ClassVar = ("narratives",)
    examples: ClassVar = ("--narratives png_coco_val2017.json --panoptic panoptic_val2017.json",)

    narratives: Annotated[Path, typer.Option(help="png_coco_val2017.json.")]
    panoptic: Annotated[Path, typer.Option(help="COCO's panoptic_val2017.json.")]
    panoptic_masks: Annotated[
        Path | None, typer.Option(help="Its folder of PNG files. Default: panoptic_val2017/ beside it.")
    ] = None

    def read(self) -> Expressions:
        """One `Expression` for each narrative, in the order of the file; narratives without grounded phrases are left
        out. A phrase is plural when it stands for several segments, as the published evaluation counts it."""
        narratives = _narratives(self.narratives)
        segments = Panoptic(self.panoptic, self.panoptic_masks)
        items: list[Expression] = []
        problems: list[str] = []
        seen: Counter[int] = Counter()
        for number, narrative in enumerate(narratives):
            try:
                image_id = _whole(narrative["image_id"])
                seen[image_id] += 1
                found = _expression(narrative, f"{image_id}_{seen[image_id] - 1}", segments)
                items += [found] if found else []
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"narrative {number} (image {narrative['image_id']}): {what_is_wrong(error)}")
        return Expressions(items, problems)


class Panoptic:
    """COCO's panoptic annotation and its folder of PNG files."""

    def __init__(self, annotation: Path, folder: Path | None = None):
        """`folder`: by default the one beside `annotation` that has its name without extension."""
        content: Any = read_json(annotation)
        parts = {"images", "annotations", "categories"}
        if not isinstance(content, dict) or not parts <= set(content):
            raise ValueError(f"{annotation} is no panoptic annotation of COCO: it lacks one of {', '.join(parts)}.")
        self.folder = folder or annotation.with_suffix("")
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder}: no such folder; name that of the panoptic PNG files.")
        try:
            self.image_names = {_whole(image["id"]): str(image["file_name"]) for image in content["images"]}
            self.annotations = {_whole(entry["image_id"]): entry for entry in content["annotations"]}
            self.is_thing = {_whole(one["id"]): _flag(one["isthing"]) for one in content["categories"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{annotation} is no panoptic annotation of COCO: {what_is_wrong(error)}.") from error
        self._last: tuple[int, np.ndarray] | None = None

    def things(self, image_id: int) -> dict[int, bool]:
        """Segment id -> whether it is a thing; empty for an image that is not annotated."""
        entry = self.annotations.get(image_id, {"segments_info": []})
        return {_whole(part["id"]): self.is_thing[_whole(part["category_id"])] for part in entry["segments_info"]}

    def segment_ids(self, image_id: int) -> np.ndarray:
        """The segment of each pixel, int32 [H, W]; that of the last image is kept."""
        if self._last is None or self._last[0] != image_id:
            path = self.folder / self.annotations[image_id]["file_name"]
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file")
            with opened(path, path.name) as image:
                red_green_blue = np.asarray(image.convert("RGB"), np.int32)
            self._last = image_id, red_green_blue @ np.array([1, 256, 256**2], np.int32)
        return self._last[1]


def _narratives(path: Path) -> list[dict[str, Any]]:
    content: Any = read_json(path)
    if not isinstance(content, list) or not all(
        isinstance(one, dict) and {"image_id", "caption", "segments"} <= set(one) for one in content
    ):
        raise ValueError(f"{path} is no list of narratives with image_id, caption and segments.")
    return content


def _expression(narrative: dict[str, Any], name: str, segments: Panoptic) -> Expression | None:
    image_id = _whole(narrative["image_id"])
    if image_id not in segments.image_names:
        raise ValueError("the panoptic annotation does not have that image")
    text, phrases = _grounded(narrative)
    things = segments.things(image_id)
    unknown = [segment for _, ids in phrases for segment in ids if segment not in things]
    if unknown:
        raise ValueError(f"the panoptic annotation has no segment {unknown[0]} there")
    if not phrases:
        return None
    spans = tuple(span for span, _ in phrases)
    read = partial(_targets, segments, image_id, [ids for _, ids in phrases])
    return Expression(name, segments.image_names[image_id], text, read, spans)


def _grounded(narrative: dict[str, Any]) -> tuple[str, list[tuple[Span, list[int]]]]:
    """The caption, and the characters and segment ids of each phrase that is grounded.

    Where the caption and its utterances differ in more than white space, the utterances are the caption.
    """
    parts = narrative["segments"]
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise ValueError("its segments are no list of objects")
    utterances = [_text(part["utterance"], "an utterance") for part in parts]
    text, caption = " ".join(utterances), _text(narrative["caption"], "its caption")
    spans, start = [], 0
    for utterance in utterances:
        spans.append((start, start + len(utterance)))
        start += len(utterance) + 1
    segments = [
        [_whole(i) for i in part["segment_ids"]] if _flag(part.get("noun", True)) and utterance else []
        for part, utterance in zip(parts, utterances, strict=True)
    ]
    grounded = [(span, ids) for span, ids in zip(spans, segments, strict=True) if ids]
    carried = carried_over([span for span, _ in grounded], text, caption)
    if carried is None:
        return text, grounded
    return caption, [(span, ids) for span, (_, ids) in zip(carried, grounded, strict=True)]


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {value!r}, no text")
    return value.strip()


def _whole(value: Any) -> int:
    """An id of COCO's, however it is spelled."""
    found = whole_of(value)
    if found is None:
        raise ValueError(f"{value!r} is no id, a whole number")
    return found


def _flag(value: Any) -> bool:
    found = flag_of(value)
    if found is None:
        raise ValueError(f"{value!r} is no flag, true or false")
    return found


def _targets(panoptic: Panoptic, image_id: int, phrases: list[list[int]]) -> list[Target]:
    pixels, things = panoptic.segment_ids(image_id), panoptic.things(image_id)
    targets = []
    for ids in phrases:
        # Of a phrase that stands for both, the last segment decides, as in the published evaluation.
        kinds = {"things" if things[ids[-1]] else "stuff", "plural" if len(ids) > 1 else "singular"}
        mask = np.any([pixels == i for i in ids], axis=0)
        targets.append(Target(rle.of_mask(mask), kinds=frozenset(kinds)))
    return targets
