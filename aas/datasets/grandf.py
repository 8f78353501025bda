"""GranD-f's two annotation files, captions and masks, and the answers that are held against them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

from aas.datasets.coco import (
    Findings,
    TrueAnnotation,
    annotations,
    image_sizes,
    mask_or_empty,
    note,
    read_lists,
    score_of,
)
from aas.rle import Rle
from aas.spellings import id_text
from aas.store.results import raw_result
from aas.store.runs import RunFolder
from aas.store.spools import ahead
from aas.text import HALF


@dataclass(frozen=True)
class GcgTruth:
    """`images`: id as text -> (height, width), those of the caption file; `all_images` with those of the mask file
    behind; `ids`: all ids as they are. `captions`, `labels` by image: the words that were written, and one label per
    mask; images that have none are not in them."""

    images: dict[str, tuple[int, int]]
    all_images: dict[str, tuple[int, int]]
    ids: list[Any]
    captions: dict[str, list[str]]
    labels: dict[str, list[str]]
    masks: list[TrueAnnotation]


@dataclass(frozen=True)
class GcgAnswer:
    """One image's answer; `masks[i]` and `scores[i]` belong to `phrases[i]`."""

    caption: str = ""
    phrases: list[str] = field(default_factory=list)
    masks: list[Rle] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def read_truth(caption_file: Path, mask_file: Path, findings: Findings) -> GcgTruth:
    """Raises ValueError or OSError for files that are none."""
    words = read_lists(caption_file, "images", "annotations")
    shapes = read_lists(mask_file, "images", "annotations")
    images = image_sizes(caption_file, words["images"], findings)
    if not images:
        raise ValueError(f"{caption_file} has no images.")
    of_masks = image_sizes(mask_file, shapes["images"], findings if caption_file != mask_file else {})
    captions, labels = _words(words["annotations"], images, findings)
    if not images.keys() & of_masks.keys():
        raise ValueError(f"{mask_file} has none of the images of {caption_file}: their ids differ.")
    for key in images:
        if key not in of_masks:
            note(findings, "images_not_in_the_file_of_masks", key)
        if key not in captions:
            note(findings, "images_without_a_true_caption", key)
    all_images = of_masks | images | {key: size for key, size in of_masks.items() if 0 not in size}
    masks = annotations(shapes["annotations"], all_images, findings)
    truth = GcgTruth(
        {key: all_images[key] for key in images},
        all_images,
        [image["id"] for image in shapes["images"]]
        + [image["id"] for image in words["images"] if id_text(image["id"]) not in of_masks],
        captions,
        labels,
        masks,
    )
    _note_counts(truth, findings)
    return truth


def _words(
    entries: list[dict[str, Any]], images: Mapping[str, Any], findings: Findings
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Captions and labels by image. The first annotation of an image has its labels; all are references."""
    captions: dict[str, list[str]] = {}
    labels: dict[str, list[str]] = {}
    for entry in entries:
        key = id_text(entry.get("image_id"))
        if key is None or key not in images:
            note(findings, "captions_of_unknown_images", entry.get("image_id"))
            continue
        if key in captions:
            note(findings, "further_captions_of_an_image", key)
        where = f"caption of image {key}"
        caption = _words_of(entry, "caption", where, findings)
        if caption is not None:
            captions.setdefault(key, []).append(caption)
        labels.setdefault(key, _texts(entry, "labels", where, findings))
    return captions, labels


def _note_counts(truth: GcgTruth, findings: Findings) -> None:
    n_masks: dict[str, int] = dict.fromkeys(truth.images, 0)
    for mask in truth.masks:
        if mask.image in n_masks:
            n_masks[mask.image] += 1
    for key, n in n_masks.items():
        if not n:
            note(findings, "images_without_true_masks", key)
        if key in truth.labels and len(truth.labels[key]) != n:
            note(
                findings, "true_masks_and_labels_differ_in_number", f"{key}: {n} masks, {len(truth.labels[key])} labels"
            )


def read_answers(folder: Path, truth: GcgTruth, findings: Findings) -> dict[str, GcgAnswer]:
    """The answers of a folder of `IMAGE_ID.json`, by image; those of other images are noted.

    Raises ValueError where none is about an image of the ground truth.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--results {folder}: no such folder.")
    files = RunFolder(folder, ".json").items()
    in_order = sorted(files.items(), key=lambda item: id_text(item[0]) not in truth.images)
    answers: dict[str, GcgAnswer] = {}
    damaged = set()
    for name, path in ahead(in_order, itemgetter(1)):
        try:
            item = raw_result(path)
        except ValueError as error:  # also of JSON and of UTF-8
            note(findings, "unreadable_files", f"{path.name}: {error}")
            damaged.add(id_text(name))
            continue
        key = id_text(name) if id_text(name) in truth.images else id_text(item.get("image_id"))
        if key is None or key not in truth.images:
            note(findings, "answers_about_unknown_images", name)
        elif key in answers:
            note(findings, "further_answers_about_an_image", name)
        else:
            answers[key] = _answer(item, truth.images[key], key, findings)
    if not answers and not damaged & truth.images.keys():
        unread = f" and {len(damaged)} are damaged ({findings['unreadable_files'][0]})" if damaged else ""
        raise ValueError(
            f"--results {folder}: none of its {len(files)} files is about an image of --gt-caption, as "
            f"{next(iter(truth.images))}.json would be{unread}."
        )
    for key in truth.images:
        if key not in answers:
            note(findings, "images_without_an_answer", key)
    return answers


def _answer(item: Mapping[str, Any], size_hw: tuple[int, int], key: str, findings: Findings) -> GcgAnswer:
    where = f"answer about {key}"
    masks, scores = (_list(item, name, where, findings) for name in ("pred_masks", "scores"))
    phrases, caption = _texts(item, "phrases", where, findings), _words_of(item, "caption", where, findings) or ""
    if not caption.strip():
        note(findings, "answers_without_a_caption", key)
    if len(phrases) != len(masks):
        note(findings, "answers_whose_masks_and_phrases_differ_in_number", f"{key}: {len(masks)} masks, {len(phrases)}")
    if not masks:
        note(findings, "answers_without_masks", key)
    scores += [None] * (len(masks) - len(scores))
    named = [f"mask {i} of the answer about {key}" for i in range(1, len(masks) + 1)]
    return GcgAnswer(
        caption,
        phrases,
        [mask_or_empty(mask, size_hw, where, findings) for mask, where in zip(masks, named, strict=True)],
        [score_of(score, where, findings) for score, where in zip(scores, named, strict=False)],
    )


def _list(item: Mapping[str, Any], key: str, where: str, findings: Findings) -> list[Any]:
    """Nothing where there is none, or (which is noted) something else."""
    value = item.get(key)
    if value is not None and not isinstance(value, list):
        note(findings, "unreadable_values", f"{where}: its {key} are no list")
    return list(value) if isinstance(value, list) else []


def _texts(item: Mapping[str, Any], key: str, where: str, findings: Findings) -> list[str]:
    """A list of words; what is none is noted and stays in its place without a word."""
    values = _list(item, key, where, findings)
    for i, value in enumerate(values, start=1):
        if not isinstance(value, (str, int, float)):
            note(findings, "unreadable_values", f"{where}: its {key} {i} is {value!r}")
    return [
        _whole(str(value), f"{where}: its {key} {i}", findings) if isinstance(value, (str, int, float)) else ""
        for i, value in enumerate(values, start=1)
    ]


def _words_of(item: Mapping[str, Any], key: str, where: str, findings: Findings) -> str | None:
    """A text; of what is none (which is noted) None."""
    value = item.get(key, "")
    if isinstance(value, str):
        return _whole(value, f"{where}: its {key}", findings)
    note(findings, "unreadable_values", f"{where}: its {key} is {value!r}")
    return None


def _whole(text: str, where: str, findings: Findings) -> str:
    """With a sign for what is missing instead of half a character (which is noted): no tokenizer takes that."""
    whole = HALF.sub("\ufffd", text)
    if whole != text:
        note(findings, "unreadable_values", f"{where} holds half a character, a lone surrogate")
    return whole
