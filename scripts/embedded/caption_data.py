"""Photographs, captions and the words in them, as the training of the embedded LMM sees them. No mask, no box."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from caption_questions import questions_of
from spacy.language import Language
from split import kept_out, manifest

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
    questions: tuple[tuple[str, str], ...] = ()  # with their answers


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


def load_captions(data_dir: Path) -> dict[int, list[str]]:
    """COCO image id -> captions, of the photographs that are here."""
    annotations = data_dir / "coco/annotations"
    return _captions(annotations, "captions_subset_val2017.json") | _captions(
        annotations, "captions_subset_train2017.json"
    )


def load_photos(data_dir: Path) -> tuple[list[Photo], list[Photo]]:
    """(for training, for choosing). The photographs for the figures are not read at all."""
    annotations = data_dir / "coco/annotations"
    captions = load_captions(data_dir)
    categories = _category_names(annotations, "instances_subset_train2017.json")
    choose, figures = kept_out(data_dir)
    train: list[Photo] = []
    chosen: list[Photo] = []
    for row in manifest(data_dir):
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
    """Every caption, of photographs that are here and of others; none of one that is kept out."""
    here, others = load_captions(data_dir), _captions(data_dir / "coco/annotations", "captions_val2017_text_only.json")
    left_out = {image_id for ids in kept_out(data_dir) for image_id in ids}
    found = {image_id: texts for image_id, texts in (here | others).items() if image_id not in left_out}
    return [text for texts in found.values() for text in texts]


def _aokvqa(data_dir: Path) -> list[dict]:
    with (data_dir / "coco_text/aokvqa_val.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def answered_questions(data_dir: Path, free: Collection[int]) -> dict[int, list[tuple[str, str]]]:
    """A-OKVQA on the photographs `free`: COCO image id -> (question, the commonest answer or a reason)."""
    found: dict[int, list[tuple[str, str]]] = {}
    for record in _aokvqa(data_dir):
        if record["coco_image_id"] in free:
            (answer, _), *_ = Counter(record["direct_answers"]).most_common(1)
            texts = [clean_caption(text) for text in (answer, *record["rationales"])]
            found.setdefault(record["coco_image_id"], []).extend((record["question"], text) for text in texts)
    return found


def question_texts(data_dir: Path) -> list[str]:
    """What A-OKVQA asks and answers about photographs that are not kept out, one text each."""
    left_out = {image_id for ids in kept_out(data_dir) for image_id in ids}
    fields = ("choices", "direct_answers", "rationales")
    return [
        text
        for r in _aokvqa(data_dir)
        if r["coco_image_id"] not in left_out
        for text in (r["question"], *(text for name in fields for text in r[name]))
    ]


def free_to_train(data_dir: Path) -> set[int]:
    """Photographs whose licence lets a model that ships learn from what was written about them later (4, 5, 7)."""
    return {int(row["image_id"]) for row in manifest(data_dir) if row["licence_id"] in ("4", "5", "7")}


def with_questions(photos: Sequence[Photo], pipeline: Language, data_dir: Path) -> list[Photo]:
    """The photographs with the questions that their captions answer, and those of A-OKVQA where it may be used."""
    asked = answered_questions(data_dir, free_to_train(data_dir))
    texts = [(caption, photo.image_id) for photo in photos for caption in photo.captions]
    for doc, image_id in pipeline.pipe(texts, as_tuples=True):
        asked.setdefault(image_id, []).extend(questions_of(doc))
    return [replace(photo, questions=tuple(dict.fromkeys(asked.get(photo.image_id, ())))) for photo in photos]


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
