"""Masks from Label Studio's JSON export."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar
from urllib.parse import unquote

from aas import rle
from aas.datasets.sources import read_json
from aas.export import brush
from aas.export.importer import Importer, Read, found_of, photograph_of, size_of
from aas.export.photograph import Found, Photograph


@dataclass(frozen=True, kw_only=True)
class FromLabelStudio(Importer):
    """Brush masks of Label Studio's JSON export: of each task the last annotation that was not cancelled.

    A task that nobody annotated keeps its prediction. A phrase is the text of its region's meta data, else the label.
    """

    examples: ClassVar = ("project-1.json --images labelstudio/images --out corrected",)

    def entries(self, notes: list[str]) -> Iterator[tuple[str, Read]]:
        """See `Importer`."""
        path = self.source / "tasks.json" if self.source.is_dir() else self.source
        tasks = read_json(path)
        if not isinstance(tasks, list) or not all(isinstance(one, dict) for one in tasks):
            raise ValueError(f"{path} is no JSON export of Label Studio's: it holds no list of tasks.")
        for i, task in enumerate(tasks, start=1):
            yield f"task {task.get('id', i)}", partial(self._photograph, path.parent, task, notes)

    def _photograph(self, folder: Path, task: Mapping[str, Any], notes: list[str]) -> Photograph:
        data = task["data"]
        address = next((str(data[key]) for key in ("image", *data) if data.get(key)), "")
        name = unquote(PurePosixPath(address.replace("?d=", "/")).name)
        regions = _result(task)
        if data.get("confidence_kind"):  # then a region's score is its phrase's, and the mask's is lost
            regions = [one | {"score": None} for one in regions]
        strokes = [_region(one) for one in regions if one.get("type") == "brushlabels"]
        if len(strokes) < len(regions):
            notes.append(f"{name}: {len(regions) - len(strokes)} regions are no brush strokes and were left out")
        height, width = strokes[0].mask["size"] if strokes else (0, 0)
        image = self.image_file(folder, name, "images")
        return photograph_of(data, name, image, (height, width), tuple(strokes))


def _result(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The regions of the annotation that counts, else of the prediction."""
    made = [one for one in task.get("annotations") or [] if not one.get("was_cancelled")]
    counting = (made or task.get("predictions") or [{}])[-1]
    return [one for one in counting.get("result") or [] if isinstance(one.get("value"), dict)]


def _region(region: Mapping[str, Any]) -> Found:
    """A brush stroke."""
    value = region["value"]
    size_hw = size_of(region.get("original_height"), region.get("original_width"), "a region")
    mask = rle.of_mask(brush.decoded(value.get("rle") or [], size_hw))
    labels, texts = value.get("brushlabels") or ["thing"], (region.get("meta") or {}).get("text") or [None]
    return found_of(region, texts[0] if isinstance(texts, list) else texts, labels[0], mask)
