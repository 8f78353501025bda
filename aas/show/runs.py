"""Any run folder, read for the viewer: of each image its photograph, answer, phrases, masks and, where kept, maps."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from aas.datasets.sources import file_names
from aas.grounding import Grounding
from aas.images import read_image
from aas.photographs import File, is_url, located
from aas.phrases.reasoning import tokens_of_answer
from aas.presets import preset_named
from aas.show.stored import answer_of, found_in, photograph_file
from aas.store.addresses import folder_at
from aas.store.attention import SUFFIX, AttentionItem, read_item
from aas.store.instances import InstanceResult
from aas.store.keys import whole_name
from aas.store.photographs import Folder, folder_of, image_file, moved_file
from aas.store.readers import READERS
from aas.store.results import OURS, ImageId, Result, read_result
from aas.store.runs import RunFolder
from aas.store.shards import is_there
from aas.store.status import open_run
from aas.view.report_entry import Panel, confidence_figures, maps_of


@dataclass(frozen=True)
class Found:
    """What a run says of one image. `image` uint8 [H, W, 3]; `item`: the file; `photograph`: a path or a URL."""

    image_id: ImageId
    image: np.ndarray
    panel: Panel
    item: Path
    photograph: str | None


class StoredRun:
    """A run of `aas ground`, `cot`, `serve`, `infer-attn` or `segment`.

    `images`: where its photographs are, if not as in run.json; `file_names`: of images by `id_text`, where their names
    do not say them, of its --ref-anno at first. Raises ValueError where `folder` is no run.
    """

    def __init__(self, folder: Path, images: Path | None = None):
        self.run, self.description = open_run(folder)
        self.command = self.description["command"]
        if self.command not in READERS:
            raise ValueError(f"{folder} holds a run of `aas {self.command}`, which cannot be shown.")
        self.inputs = self.description.get("inputs", {})
        named = images or (located(self.inputs["images"]) if self.inputs.get("images") else None)
        self.photographs: Folder = folder_of(named) if named else folder
        self.given = self.photographs if images else None
        self.file_names: dict[str | None, str | None] = {**file_names(self.inputs.get("ref_anno"))}

    @property
    def name(self) -> str:
        """What people call it."""
        return self.run.path.absolute().name

    def find(self, key: str) -> Found:
        """Raises ValueError or OSError for what is missing or damaged."""
        path = self.run.item_path(key)
        if self.command in ("ground", "cot", "serve"):
            result = read_result(path, needs=OURS)
            moved = self._moved(key, result)
            grounding = Grounding.of_result(result, path, moved)
            source = grounding.source if moved is None else str(moved)
            return Found(grounding.name, grounding.image, grounding.panel(), path, source)
        item = READERS[self.command](path)
        return self._attention(item, path) if isinstance(item, AttentionItem) else self._masks(item, key, path)

    def _moved(self, key: str, result: Result) -> File | None:
        """Where the photograph of a result is that lay beside it, if somebody said so."""
        if self.given is None or is_url(result.image or ""):
            return None
        return moved_file(self.given, whole_name(key, result.image_id), result.image)

    def _attention(self, item: AttentionItem, path: Path) -> Found:
        file = image_file(self.photographs, item.image)
        panel = Panel(item.answer, [], maps=maps_of(item.attention, [], tokens_of_answer(item.answer)))
        return Found(item.image, _photograph(file, item.image_hw, path), panel, path, str(file))

    def _masks(self, item: Result | InstanceResult, key: str, path: Path) -> Found:
        file = photograph_file(item, key, self.photographs, self.file_names)
        image = read_image(file)
        phrases = found_in(item, path, image.shape[:2])
        answer = answer_of(item)
        panel = Panel(answer, phrases)
        if isinstance(item, Result):
            figures = confidence_figures(item.confidence_kind, item.confidences or ())
            panel = replace(panel, left_out=item.left_out or (), figures=figures)
        captured = self._captured(key, file)
        if captured is not None and captured.answer.text == answer.text:
            panel = self._with_maps(panel, captured, item)
        return Found(item.image_id, image, panel, path, str(file))

    def _captured(self, key: str, photograph: File) -> AttentionItem | None:
        """The attention that a result was made of, where it is still there."""
        if not self.inputs.get("attn"):
            return None
        attn = RunFolder(folder_at(self.inputs["attn"]), SUFFIX)
        names = [key]
        if not isinstance(photograph, Path) or not isinstance(self.photographs, Path):
            names.append(photograph.name)
        elif photograph.is_relative_to(self.photographs):
            names.append(photograph.relative_to(self.photographs).as_posix())
        file = next((file for file in map(attn.item_path, names) if is_there(file)), None)
        return None if file is None else read_item(file)

    def _with_maps(self, panel: Panel, captured: AttentionItem, item: Result | InstanceResult) -> Panel:
        arguments, answer = self.description["arguments"], captured.answer
        attention = captured.attention.of(arguments.get("maps") or captured.attention.source)
        tokens = (item.token_indices or ()) if isinstance(item, Result) else ()
        counted = None if arguments.get("reasoning") else tokens_of_answer(answer)
        merge = self.description.get("preset", {}).get("merge") or preset_named("paper").merge
        maps = maps_of(attention, tokens if all(tokens) else (), counted, merge)
        return replace(panel, answer=answer, maps=maps)


def _photograph(file: File, image_hw: tuple[int, int], item: Path) -> np.ndarray:
    image = read_image(file)
    if image.shape[:2] != image_hw:
        raise ValueError(f"{item} is about an image of another size than {file}.")
    return image
