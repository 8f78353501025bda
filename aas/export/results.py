"""The results of a run folder as photographs."""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from tqdm import tqdm

from aas import rle
from aas.datasets.sources import file_names
from aas.export.photograph import Found, Photograph, label_of, ready, shown
from aas.photographs import File, is_url, located
from aas.progress import bar_for
from aas.spellings import id_of, id_text
from aas.store.instances import InstanceResult, read_instances
from aas.store.keys import whole_name
from aas.store.photographs import Folder, folder_of, moved_file
from aas.store.results import OURS, Result, read_result
from aas.store.spools import ahead
from aas.store.status import open_run

SEGMENTED, INSTANCES = ("segment gcg", "segment expressions"), "segment instance"
JUDGED = ("ground", "cot", "serve", "segment gcg")  # commands that may give phrases a confidence
# Commands whose results say where the photograph is, seen from their folder.
BESIDE = ("ground", "cot", "serve", "import")
UNJUDGED = "whose phrases have no confidence: leave --min-confidence out."


class Results:
    """The photographs of a run of `aas ground`, `cot`, `serve`, `segment` or `import`, in the order of their keys.

    `images`: the folder of the photographs, where it is another one than run.json says; `least`: the confidence below
    which phrases are left out, which are `n_unsupported` in the end. What cannot be read, or is not known to have that
    much, is in `failures`, a line each; `n_empty`: phrases that were left out, because their mask has no pixel. Raises
    ValueError for what is no such run.
    """

    def __init__(self, folder: Path, images: Path | None = None, least: float | None = None):
        self.run, description = open_run(folder)
        self.command = description["command"]
        if self.command not in (*BESIDE, *SEGMENTED, INSTANCES):
            raise ValueError(f"{folder} holds a run of `aas {self.command}`, which has no masks.")
        if least is not None and self.command not in JUDGED:
            raise ValueError(f"{folder} holds a run of `aas {self.command}`, {UNJUDGED}")
        inputs = description.get("inputs", {})
        self.photographs = None if images is None and self.command in BESIDE else images or _images_of(folder, inputs)
        self.file_names = file_names(inputs.get("ref_anno"))
        self.failures: list[str] = []
        self.least = least
        self.n_empty = self.n_unsupported = 0

    def __iter__(self) -> Iterator[Photograph]:
        items = self.run.items()
        ids = _numbers(list(items))
        entries = ahead(items.items(), itemgetter(1))
        for key, path in tqdm(entries, total=len(items), unit="photograph", **bar_for(len(items))):
            try:
                yield self._photograph(ids[key], key, path)
            except (ValueError, OSError) as error:
                self.failures.append(str(error))

    def _photograph(self, number: int, key: str, path: Path) -> Photograph:
        item = read_instances(path) if self.command == INSTANCES else read_result(path, needs=OURS)
        found, where = _found(item), self._source(item, key, path)
        source, size_hw = ready(where)
        if any(tuple(one.mask["size"]) != size_hw for one in found):
            raise ValueError(f"{path} is about an image of another size than {where}.")
        supported = self._supported(found, path)
        seen = tuple(one for one in supported if rle.area(one.mask))
        self.n_unsupported += len(found) - len(supported)
        self.n_empty += len(supported) - len(seen)
        question, kind = (item.question, item.confidence_kind) if isinstance(item, Result) else ("", None)
        return Photograph(number, key, source, size_hw, item.caption, question, seen, kind)

    def _supported(self, found: tuple[Found, ...], path: Path) -> tuple[Found, ...]:
        if self.least is None:
            return found
        values = [one.confidence for one in found]
        if None in values:
            raise ValueError(f"{path} is a result {UNJUDGED}")
        return tuple(one for one, value in zip(found, values, strict=True) if value is not None and value >= self.least)

    def _source(self, item: Result | InstanceResult, key: str, path: Path) -> str | File:
        told = item.image if isinstance(item, Result) else None
        if told is not None and is_url(told):
            return told
        if self.photographs is None:
            if told is None:
                raise ValueError(f"{path} does not say where its photograph is: give its folder with --images.")
            return path.parent / told
        file_name = None if self.command in BESIDE else told or self._file_name(item)
        return moved_file(self.photographs, whole_name(key, item.image_id), told, file_name)

    def _file_name(self, item: Result | InstanceResult) -> str | None:
        return self.file_names.get(id_text(item.image_id))


def _images_of(folder: Path, inputs: Mapping[str, Any]) -> Folder:
    if not inputs.get("images"):
        raise ValueError(f"{folder / 'run.json'} does not say where the photographs are: give their folder, --images.")
    return folder_of(located(inputs["images"]))


def _numbers(keys: list[str]) -> dict[str, int]:
    """A number for each key: itself where all keys are numbers, as COCO's ids are; else its place, from 1."""
    ids = [id_of(key) for key in keys]
    if all(isinstance(one, int) and one >= 0 for one in ids) and len(set(ids)) == len(ids):
        return dict(zip(keys, ids, strict=True))  # type: ignore[arg-type]
    return {key: i for i, key in enumerate(keys, start=1)}


def _found(item: Result | InstanceResult) -> tuple[Found, ...]:
    return of_result(item) if isinstance(item, Result) else _of_instances(item)


def of_result(result: Result) -> tuple[Found, ...]:
    """Its phrases and masks; the class of each is what `label_of` makes of its words."""
    n = len(result.phrases)
    known = (result.scores, result.points_xy, result.spans, result.confidences)
    rows = zip(result.phrases, result.pred_masks, *(column or [None] * n for column in known), strict=True)
    return tuple(Found(phrase, label_of(phrase), mask, *told) for phrase, mask, *told in rows)


def _of_instances(result: InstanceResult) -> tuple[Found, ...]:
    return tuple(
        Found(one.noun_phrase, shown(one.category_name) or "thing", one.segmentation, one.score, one.point_xy)
        for one in result.detections
    )
