"""Photographs, captions and the words in them, as the training of the embedded LMM sees them. No mask, no box."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from split import kept_out

SIDE = 448  # photographs are held in memory stretched to a square of this side, in pixels
WORD = re.compile(r"[A-Za-z]+")
PLURALS = {"men": "man", "women": "woman", "people": "person", "children": "child", "persons": "person",
           "knives": "knife", "sheep": "sheep", "skis": "ski", "buses": "bus", "sandwiches": "sandwich",
           "benches": "bench", "couches": "couch", "glasses": "glass", "dishes": "dish", "toothbrushes": "toothbrush",
           "dresses": "dress", "boxes": "box", "watches": "watch", "wine": "wine", "tennis": "tennis", "grass": "grass",
           "glass": "glass", "dress": "dress", "bus": "bus", "cross": "cross", "across": "across"}  # fmt: skip
STOP_WORDS = """
    a an the this that these those it its his her their there he she they them him who which what where while
    when and or but as of in on at to by with from for into onto over under up down out off near next around
    across through along behind between above below beside inside outside against about during after before
    towards toward is are was were be been being has have had having do does doing can could will would get gets
    getting go goes going some any each other another others one two three four five six several many few lot
    lots couple group bunch all both very so not no non just then than also like same different each every more
    most much own only such too well upon another's image picture photo photograph view shot top front back side
    middle left right large small big little s t
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Photo:
    """`pixels` uint8 [SIDE, SIDE, 3] RGB, stretched; `captions` may be empty; `categories` names what is there."""

    image_id: int
    pixels: np.ndarray
    captions: tuple[str, ...]
    categories: tuple[str, ...]


def clean_caption(text: str) -> str:
    """One line, a capital first, a full stop last."""
    text = " ".join(text.split())
    if sum(c.isupper() for c in text) > len(text) / 2:
        text = text.lower()
    text = text.rstrip(" .,;!") + "."
    return text[0].upper() + text[1:]


def mirrored(caption: str) -> str:
    """The caption of the photograph flipped left to right."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return re.sub(r"\b([Ll]eft|[Rr]ight)\b", lambda m: swap[m.group()], caption)


def concept_of(word: str) -> str:
    """Lower case, singular: `Dogs` -> `dog`."""
    word = word.lower()
    if word in PLURALS:
        return PLURALS[word]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def concepts_in(text: str) -> list[str]:
    return [concept_of(m.group()) for m in WORD.finditer(text) if m.group().lower() not in STOP_WORDS]


def _captions(annotations: Path, name: str) -> dict[int, list[str]]:
    captions: dict[int, list[str]] = {}
    for annotation in json.loads((annotations / name).read_text())["annotations"]:
        captions.setdefault(annotation["image_id"], []).append(clean_caption(annotation["caption"]))
    return captions


def _category_names(annotations: Path, name: str) -> dict[int, list[str]]:
    instances = json.loads((annotations / name).read_text())
    names = {category["id"]: category["name"] for category in instances["categories"]}
    found: dict[int, list[str]] = {}
    for annotation in instances["annotations"]:
        found.setdefault(annotation["image_id"], []).append(names[annotation["category_id"]])
    return {image_id: sorted(set(values)) for image_id, values in found.items()}


def read_square(path: Path, side: int = SIDE) -> np.ndarray:
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise FileNotFoundError(path)
    interpolation = cv2.INTER_AREA if min(pixels.shape[:2]) > side else cv2.INTER_LINEAR
    return cv2.resize(pixels, (side, side), interpolation=interpolation)


def load_photos(data_dir: Path) -> tuple[list[Photo], list[Photo]]:
    """(for training, for choosing). The photographs for the figures are not read at all."""
    annotations = data_dir / "coco/annotations"
    captions = _captions(annotations, "captions_subset_val2017.json") | _captions(
        annotations, "captions_subset_train2017.json"
    )
    categories = _category_names(annotations, "instances_subset_train2017.json")
    choose, figures = kept_out(data_dir)
    train: list[Photo] = []
    chosen: list[Photo] = []
    with (data_dir / "coco/MANIFEST.csv").open() as manifest:
        for row in csv.DictReader(manifest):
            image_id = int(row["image_id"])
            if image_id in figures:
                continue
            photo = Photo(
                image_id,
                read_square(data_dir / "coco" / row["file"]),
                tuple(captions.get(image_id, ())),
                tuple(categories.get(image_id, ())),
            )
            (chosen if image_id in choose else train).append(photo)
    return train, chosen


def caption_texts(data_dir: Path) -> list[str]:
    """Every caption there is, of photographs that are here and of others."""
    names = ("captions_subset_val2017.json", "captions_subset_train2017.json", "captions_val2017_text_only.json")
    found = [_captions(data_dir / "coco/annotations", name) for name in names]
    return [caption for captions in found for some in captions.values() for caption in some]


def question_texts(data_dir: Path) -> list[str]:
    """Questions, answers and reasons of A-OKVQA, one text each."""
    with (data_dir / "coco_text/aokvqa_val.jsonl").open() as lines:
        records = [json.loads(line) for line in lines]
    fields = ("choices", "direct_answers", "rationales")
    return [text for r in records for text in (r["question"], *(text for name in fields for text in r[name]))]


def find_concepts(photos: Iterable[Photo], min_photos: int = 8) -> list[str]:
    """Content words that the captions of at least `min_photos` photographs hold, the commonest first."""
    counts: Counter[str] = Counter()
    for photo in photos:
        counts.update(set(concepts_in(" ".join(photo.captions + photo.categories))))
    return [word for word, n in counts.most_common() if n >= min_photos]


def word_target(photo: Photo, concepts: Sequence[str]) -> np.ndarray:
    """Share of the photograph's captions that hold each concept, normalised; float32 [n_concepts]."""
    texts = photo.captions or (" ".join(photo.categories),)
    index = {word: i for i, word in enumerate(concepts)}
    target = np.zeros(len(concepts), np.float32)
    for text in texts:
        target[[index[word] for word in set(concepts_in(text)) if word in index]] += 1
    if photo.captions and photo.categories:
        named = {index[word] for name in photo.categories for word in concepts_in(name) if word in index}
        target[list(named)] = np.maximum(target[list(named)], 1)
    return target / max(target.sum(), 1e-6)


def augmented(pixels: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """A random crop of 55 to 100 % of the area, resized to `side`, flipped or not, with jittered colours.

    The crops are large, so that most of what a caption names stays in sight. Returns uint8 RGB, and whether it was
    flipped.
    """
    height, width = pixels.shape[:2]
    scale_h, scale_w = np.sqrt(rng.uniform(0.55, 1)) * np.exp(rng.uniform(-0.15, 0.15) * np.array([1, -1]))
    crop_h, crop_w = min(height, int(height * scale_h)), min(width, int(width * scale_w))
    top, left = rng.integers(height - crop_h + 1), rng.integers(width - crop_w + 1)
    crop = pixels[top : top + crop_h, left : left + crop_w]
    crop = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA if side < crop_h else cv2.INTER_LINEAR)
    flipped = bool(rng.random() < 0.5)
    if flipped:
        crop = crop[:, ::-1]
    x = crop.astype(np.float32)
    grey = x.mean(axis=2, keepdims=True)
    x = grey + (x - grey) * rng.uniform(0.7, 1.3)  # saturation
    x = (x - 128) * rng.uniform(0.8, 1.2) + 128 + rng.uniform(-20, 20)  # contrast, brightness
    x *= rng.uniform(0.93, 1.07, size=3)  # white balance
    return x.clip(0, 255).astype(np.uint8), flipped
