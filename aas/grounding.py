"""An answer about an image, its noun phrases and where they are: looked at, asked, drawn, saved and loaded."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aas import rle
from aas.choices import ConfidenceKind
from aas.export.grounded import Exportable
from aas.export.photograph import Photograph, ready
from aas.export.results import of_result
from aas.images import ImageLike, as_pixels
from aas.photographs import is_url
from aas.phrases.likelihood import token_probabilities
from aas.phrases.reasoning import tokens_of_answer
from aas.records import Answer, AttentionMaps, GroundedPhrase, Phrase, SecondLook, View
from aas.store.addresses import Spooled
from aas.store.atomic import write_png
from aas.store.attention import AttentionItem, read_item, write_item
from aas.store.keys import quoted, unquoted
from aas.store.results import OURS, Result, read_result, result_json, result_of, write_result
from aas.store.spools import facts_at
from aas.view import look_sheet, overlay, report
from aas.view.report_entry import Maps, Panel, confidence_figures, entry, maps_of


@dataclass(frozen=True, repr=False)
class Grounding(Exportable):
    """An answer about an image, its noun phrases and where they are. Of N phrases in an image of H x W pixels.

    `image` uint8 [H, W, 3] RGB, upright: all points and masks are in its pixels. `name` is that of its files: the
    image's without extension, reserved characters percent-encoded, or `image`. `attention`: a map of each token of the
    answer. `left_out`: phrases that name nothing to look for (pronouns, "the image"), or of less confidence than was
    asked for. `source`: the image's path or URL, if it has one. `confidence_kind`: what the phrases' `confidence` is
    (docs/maps.md); None where they have none. `second_look`: where the answer is the thought of a visual chain of
    thought, how that ends (docs/cot.md).

    `grounding["a cup"]` is the phrase of these words (or of that root word), `grounding[0]` the first; `len` and
    iteration are over phrases.
    """

    name: str
    image: np.ndarray
    answer: Answer
    phrases: tuple[GroundedPhrase, ...]
    attention: AttentionMaps
    left_out: tuple[str, ...] = ()
    source: str | None = None
    model: str = ""
    confidence_kind: ConfidenceKind | None = None
    second_look: SecondLook | None = None

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"<Grounding of {self.name!r}, {width} x {height}: {', '.join(map(repr, self.labels)) or 'no phrases'}>"

    def __len__(self) -> int:
        return len(self.phrases)

    def __iter__(self) -> Iterator[GroundedPhrase]:
        return iter(self.phrases)

    def __getitem__(self, which: int | str) -> GroundedPhrase:
        if isinstance(which, int):
            return self.phrases[which]
        wanted = which.casefold()
        for of in (lambda one: one.text, lambda one: one.phrase.root_in(self.answer.text)):
            found = [one for one in self.phrases if of(one).casefold() == wanted]
            if found:
                return found[0]
        raise KeyError(f"{which!r} is none of the phrases: {', '.join(map(repr, self.labels)) or 'there are none'}")

    @property
    def masks(self) -> np.ndarray:
        """bool [N, H, W]."""
        return np.array([one.mask for one in self.phrases], bool).reshape(-1, *self.image.shape[:2])

    @property
    def boxes(self) -> np.ndarray:
        """float32 [N, 4], xyxy in pixels, half-open: the smallest around each mask; zeros for an empty one."""
        return np.array([rle.box_xyxy(one.mask) for one in self.phrases], np.float32).reshape(-1, 4)

    @property
    def labels(self) -> list[str]:
        """The words of the N phrases."""
        return [one.text for one in self.phrases]

    @property
    def scores(self) -> np.ndarray:
        """float32 [N]: the segmenter's own estimate of each mask's IoU."""
        return np.array([one.score for one in self.phrases], np.float32)

    @property
    def confidences(self) -> np.ndarray:
        """float64 [N], from 0 to 1: how far the picture supports each phrase; NaN where that is not known."""
        return np.array([np.nan if one.confidence is None else one.confidence for one in self.phrases], np.float64)

    @property
    def points_xy(self) -> np.ndarray:
        """int64 [N, 2], pixels: the peak of each phrase's map."""
        return np.array([one.point_xy for one in self.phrases], np.int64).reshape(-1, 2)

    @property
    def token_maps(self) -> np.ndarray:
        """float32 [tokens, h, w] over `view`: the attention that each token of the answer paid to the image."""
        return self.attention.maps

    @property
    def view(self) -> View:
        """The grid of all maps, and the rectangle of the image that it covers."""
        return self.attention.view

    def item(self) -> dict[str, Any]:
        """The GCG item: plain JSON types, masks as COCO run lengths of the upright image."""
        return result_json(self._result(self.name, self.source))

    def _result(self, name: str, source: str | None) -> Result:
        return result_of(
            [one.phrase for one in self.phrases],
            [rle.of_mask(one.mask) for one in self.phrases],
            [one.point_xy for one in self.phrases],
            [one.score for one in self.phrases],
            [tuple((*xy, label) for xy, label in zip(one.points_xy, one.labels, strict=True)) for one in self.phrases],
            image_id=name,
            image=source,
            question=self.answer.question,
            caption=self.answer.text,
            left_out=self.left_out,
            token_probabilities=token_probabilities(self.answer, [one.phrase for one in self.phrases]),
            confidences=None if self.confidence_kind is None else tuple(self.confidences.tolist()),
            confidence_kind=self.confidence_kind,
            second_look=self.second_look,
        )

    def photograph(self) -> Photograph:
        """As exporters take it: the file, where it is one that every tool reads, else its pixels; no empty masks."""
        is_file = self.source is not None and not is_url(self.source) and Path(self.source).is_file()
        source = ready(self.source)[0] if is_file and self.source else self.image
        height, width = self.image.shape[:2]
        found = tuple(one for one in of_result(self._result(self.name, None)) if one.area)
        words = (self.answer.text, self.answer.question)
        return Photograph(1, unquoted(self.name), source, (height, width), *words, found, self.confidence_kind)

    def draw(self) -> Image.Image:
        """The photograph with coloured masks, points and labels, beside the answer in the same colours."""
        if self.second_look is not None:
            return look_sheet.draw(self.image, self.answer, self.phrases, self.second_look)
        return overlay.draw(self.image, self.answer, self.phrases, self.left_out, self.confidence_kind)

    def _repr_html_(self) -> str:
        """What a notebook shows: photograph, masks and maps in the viewer of report.html."""
        height, width = self.image.shape[:2]
        return report.embedded(
            entry(unquoted(self.name), self.image, [self.panel()]), 240 + round(min(520, 640 * height / width))
        )

    def panel(self, title: str = "") -> Panel:
        """What the viewer is told of the answer, its phrases and their maps."""
        of_phrases = np.array([one.map for one in self.phrases], np.float32).reshape(-1, *self.view.size_hw)
        tokens = [one.phrase.token_indices for one in self.phrases]
        maps = maps_of(self.attention, tokens, tokens_of_answer(self.answer), pointing=of_phrases)
        maps = maps or (Maps("attention", self.view, of_phrases),)
        figures = confidence_figures(self.confidence_kind, self.confidences.tolist())
        title = title or ("" if self.second_look is None else f"Answer: {self.second_look.answer}")
        return Panel(self.answer, self.phrases, title, self.left_out, maps, figures=figures)

    def save(self, folder: str | Path, name: str | None = None) -> tuple[Path, Path]:
        """Write `NAME.json` (the item), `NAME.png` (the picture) and `NAME.safetensors` (the maps) into `folder`;
        returns the paths of the first two. `name`: this grounding's own unless another one is given.

        A photograph that came from no file is written beside them, so that `load` finds it.
        """
        return self.write(Path(folder), self.name if name is None else quoted(name))

    def write(self, folder: Path, name: str, with_png: bool = True) -> tuple[Path, Path]:
        """As `save`; `name` is what the files are called, with nothing encoded."""
        json_path, png_path = folder / f"{name}.json", folder / f"{name}.png"
        if with_png:
            write_png(png_path, self.draw())
        write_item(folder / f"{name}.safetensors", self._attention_item())
        write_result(json_path, self._result(name, self._source_from(folder, name)))  # the last: now it is done
        return json_path, png_path

    def _attention_item(self) -> AttentionItem:
        maps = np.stack([one.map for one in self.phrases]) if self.phrases else None
        height, width = self.image.shape[:2]
        source = self.source or self.name
        return AttentionItem(source, (height, width), self.answer, self.attention, self.model, self.model, {}, maps)

    def _source_from(self, folder: Path, name: str) -> str:
        """Where the photograph is, seen from `folder`, with which it may move."""
        if self.source is None:
            write_png(folder / f"{name}.photo.png", Image.fromarray(self.image))
            return f"{name}.photo.png"
        return self.source if is_url(self.source) else relative(Path(self.source), folder)

    @classmethod
    def load(cls, path: str | Path, image: "ImageLike | None" = None) -> "Grounding":
        """What `save` or `aas ground` wrote: `path` is NAME.json. `image`: the photograph, where it was moved.

        Raises ValueError or OSError, which name the file, for what is missing or damaged.
        """
        path = path if isinstance(path, Path) else Path(path)  # one at a URL stays what it is
        return cls.of_result(read_result(path, needs=OURS), path, image)

    @classmethod
    def of_result(cls, result: Result, path: Path, image: "ImageLike | None" = None) -> "Grounding":
        """The same of a `result` that was read from `path` already."""
        item = read_item(path.with_suffix(".safetensors"))
        source = photograph_of(result, path)
        pixels = as_pixels(source if image is None else image)
        if pixels.shape[:2] != item.image_hw:
            raise ValueError(f"{path} is about an image of another size than {source}.")
        if item.phrase_maps is not None and len(item.phrase_maps) != len(result.phrases):
            raise ValueError(f"{path} and the maps beside it are not of one answer.")
        phrases = tuple(_grounded(result, i, item) for i in range(len(result.phrases)))
        return cls(
            path.name.removesuffix(path.suffix),
            pixels,
            item.answer,
            phrases,
            item.attention,
            result.left_out or (),
            source,
            item.model,
            result.confidence_kind,
            result.second_look,
        )


def _grounded(result: Result, i: int, item: AttentionItem) -> GroundedPhrase:
    assert result.spans and result.points_xy and result.scores
    tokens = result.token_indices[i] if result.token_indices else ()
    phrase_map = np.zeros(item.attention.view.size_hw, np.float32) if item.phrase_maps is None else item.phrase_maps[i]
    shown = result.points_shown[i]
    return GroundedPhrase(
        Phrase(result.phrases[i], result.spans[i], result.spans[i], tokens),
        phrase_map,
        result.points_xy[i],
        rle.decoded(result.pred_masks[i]),
        result.scores[i],
        tuple((x, y) for x, y, _ in shown),
        tuple(label for _, _, label in shown),
        None if result.confidences is None else result.confidences[i],
    )


def photograph_of(result: Result, path: Path) -> str:
    """Path or URL of the photograph that the result in the file `path` is about."""
    if result.image is None:
        raise ValueError(f"{path} does not say where its photograph is: give it as `image`.")
    if is_url(result.image):
        return result.image
    beside = path.parent / result.image
    return os.path.normpath(beside) if facts_at(beside) is None else str(beside)


def relative(path: Path, folder: Path) -> str:
    """`path` as seen from `folder`, or in full where there is no way (another drive, a folder at a URL)."""
    if isinstance(folder, Spooled):
        return path.resolve().as_posix()
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return path.resolve().as_posix()
