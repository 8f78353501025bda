"""The results of `aas ground`, `segment gcg` and `segment expressions`: an answer about one image, and a mask for each
of its phrases, as JSON (docs/formats.md). Nothing else knows the keys of these files.

The reader is strict: what it returns can be drawn and counted without another look. Evaluations, which go on after a
damaged mask, take the object as it is (`raw_result`).
"""

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aas import rle
from aas.choices import ConfidenceKind
from aas.records import Phrase, Prompt, SecondLook
from aas.rle import Rle
from aas.store import values
from aas.store.atomic import write_text
from aas.store.second_looks import look_json, look_of
from aas.store.shards import content_of
from aas.store.values import Check
from aas.text import of_json, text_of

ImageId = str | int
PointXY = tuple[int, int]  # pixels of the upright image; files of others may hold floats
LabelledPoint = tuple[int, int, int]  # x, y, and 1 = on the thing, 0 = not on it


class ResultError(ValueError):
    """A file is no result, or is damaged; the message names it."""


@dataclass(frozen=True)
class Result:
    """An answer about one image, and where its phrases are: `pred_masks[i]` and all other columns belong to
    `phrases[i]`.

    `image`: path of the photograph, where `image_id` does not name it. `points_xy`: the peak of the phrase's map.
    `prompt_points`: all points that the segmenter was shown (none of a mask prompt). `spans`: half-open, characters of
    `caption`. `token_indices`: of the answer's tokens. `covers_point`: whether the mask holds the pixel of `points_xy`.
    `left_out`: phrases that were not looked for, or not kept. `confidences` from 0 to 1, and what they are;
    `token_probabilities`: of each phrase's least likely token, by the LMM. `second_look`: of a visual chain of thought,
    whose thought is the caption. What is None is not in the file, as in those of other programs.
    """

    image_id: ImageId
    caption: str
    phrases: tuple[str, ...]
    pred_masks: tuple[Rle, ...]
    question: str = ""
    image: str | None = None
    points_xy: tuple[PointXY, ...] | None = None
    prompt_points: tuple[tuple[LabelledPoint, ...], ...] | None = None
    scores: tuple[float, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    token_indices: tuple[tuple[int, ...], ...] | None = None
    covers_point: tuple[bool, ...] | None = None
    left_out: tuple[str, ...] | None = None
    confidences: tuple[float, ...] | None = None
    token_probabilities: tuple[float, ...] | None = None
    confidence_kind: ConfidenceKind | None = None
    second_look: SecondLook | None = None

    @property
    def points_shown(self) -> tuple[tuple[LabelledPoint, ...], ...]:
        """`prompt_points`; of a file that does not say them, the one point of each phrase."""
        if self.prompt_points is not None:
            return self.prompt_points
        return tuple(((x, y, 1),) for x, y in self.points_xy or ())


# ------------------------------------------------------------------------------------------------------- making


def result_of(
    phrases: Sequence[Phrase],
    masks: Sequence[Rle],
    points_xy: Sequence[PointXY],
    scores: Sequence[float],
    prompt_points: Sequence[Sequence[LabelledPoint]] | None = None,
    **about: Any,
) -> Result:
    """A result with all columns; `about`: the fields of `Result` that are the image's (`image_id`, `caption`, …)."""
    return Result(
        phrases=tuple(phrase.text for phrase in phrases),
        pred_masks=tuple(masks),
        points_xy=tuple(points_xy),
        prompt_points=None if prompt_points is None else tuple(map(tuple, prompt_points)),
        scores=tuple(scores),
        spans=tuple(phrase.span for phrase in phrases),
        token_indices=tuple(phrase.token_indices for phrase in phrases),
        covers_point=tuple(map(rle.covers, masks, points_xy)),
        **about,
    )


def labelled_points(prompt: Prompt) -> tuple[LabelledPoint, ...]:
    """The points of a prompt with their labels; none of a mask prompt."""
    if prompt.points_xy is None or prompt.labels is None:
        return ()
    rows = zip(prompt.points_xy.tolist(), prompt.labels.tolist(), strict=True)
    return tuple((round(x), round(y), label) for (x, y), label in rows)


# ------------------------------------------------------------------------------------------------------ writing


def write_result(path: Path, result: Result) -> None:
    """One JSON object on one line. The same result gives the same bytes."""
    write_text(path, json.dumps(result_json(result), ensure_ascii=False) + "\n")


def result_json(result: Result) -> dict[str, Any]:
    """Plain JSON types, in the order of the file."""
    image = {} if result.image is None else {"image": result.image}
    columns = {key: getattr(result, field) for key, (field, _) in _COLUMNS.items()}
    return {
        "image_id": result.image_id,
        **image,
        "question": result.question,
        "caption": result.caption,
        **{key: as_lists(column) for key, column in columns.items() if column is not None},
        **({} if result.confidence_kind is None else {"confidence_kind": result.confidence_kind}),
        **({} if result.left_out is None else {"left_out": list(result.left_out)}),
        **({} if result.second_look is None else {"second_look": look_json(result.second_look)}),
    }


def as_lists(value: Any) -> Any:
    """Tuples, and those in them, as lists."""
    return [as_lists(one) for one in value] if isinstance(value, tuple) else value


# ------------------------------------------------------------------------------------------------------ reading


def read_result(path: Path, needs: Collection[str] = ()) -> Result:
    """A result of ours or of another program; `needs`: keys of columns that must be there.

    Raises ResultError for what is no result or damaged: masks whose runs do not fill their size, columns of unlike
    lengths, spans outside the caption, numbers that are not finite.
    """
    with naming(path):
        return _result(raw_result(path), needs)


def raw_result(path: Path) -> dict[str, Any]:
    """The object with `pred_masks` as it lies in a file, or in one that is wrapped as GLaMM writes it, {name: item}.

    Nothing else is checked. Raises ValueError, without the file's name.
    """
    content = loaded(path)
    if isinstance(content, dict) and len(content) == 1 and isinstance(wrapped := next(iter(content.values())), dict):
        content = wrapped
    if not isinstance(content, dict) or "pred_masks" not in content:
        raise ValueError("no object with caption, phrases and pred_masks")
    return content


def loaded(path: Path) -> Any:
    """The JSON of a file, which may lie in a shard; ValueError, without the file's name, where it is none."""
    return of_json(text_of(content_of(path), path))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What is raised inside names the file."""
    try:
        yield
    except ValueError as error:  # also of JSON and of UTF-8
        raise ResultError(f"{path}: not a result, or damaged ({error})") from error


# --------------------------------------------------------------------------------------------- keys and their check

_COLUMNS: dict[str, tuple[str, Check]] = {  # key -> field of Result and what each of its entries must be
    "phrases": ("phrases", values.text),
    "pred_masks": ("pred_masks", values.mask),
    "points": ("points_xy", values.point_xy),
    "prompt_points": ("prompt_points", values.labelled_points),
    "scores": ("scores", values.number),
    "spans": ("spans", values.span),
    "token_indices": ("token_indices", values.indices),
    "covers_point": ("covers_point", values.flag),
    "token_probabilities": ("token_probabilities", values.share),
    "confidences": ("confidences", values.share),
}
OURS = ("points", "scores", "spans")  # columns of every file of ours, whatever its age


def _result(content: dict[str, Any], needs: Collection[str]) -> Result:
    missing = [key for key in ("phrases", *needs) if key not in content]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    columns = {
        field: values.column(key, content[key], check) for key, (field, check) in _COLUMNS.items() if key in content
    }
    image, kind, look = (content.get(key) for key in ("image", "confidence_kind", "second_look"))
    result = Result(
        image_id=values.named("image_id", content.get("image_id"), values.an_id),
        caption=values.named("caption", content.get("caption"), values.text),
        question=values.named("question", content.get("question", ""), values.text),
        image=None if image is None else values.named("image", image, values.text),
        left_out=values.column("left_out", content["left_out"], values.text) if "left_out" in content else None,
        confidence_kind=None if kind is None else values.named("confidence_kind", kind, values.confidence_kind),
        second_look=None if look is None else values.named("second_look", look, look_of),
        **columns,
    )
    _check_together(result, {key: len(content[key]) for key in _COLUMNS if key in content})
    return result


def _check_together(result: Result, lengths: dict[str, int]) -> None:
    if len(set(lengths.values())) > 1:
        raise ValueError("not equally many " + ", ".join(f"{key} ({n})" for key, n in lengths.items()))
    if any(end > len(result.caption) for _, end in result.spans or ()):
        raise ValueError("a span ends behind the caption")
    check_one_size(result.pred_masks)


def check_one_size(masks: Sequence[Rle]) -> None:
    """ValueError where masks of one image differ in size."""
    if len({tuple(mask["size"]) for mask in masks}) > 1:
        raise ValueError("masks of one image differ in size")
