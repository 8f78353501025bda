"""Photographs and right masks that mask heads learn from on the embedded LMM, as runs of `aas import`.

Captions, behind each of which a sentence lists categories in sight, which stands alone where a photograph has no
captions; for choosing, captions as they are. A phrase whose root word
names a COCO category that is there stands for all things of that category together. Photographs are cropped and
mirrored, a few times each.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from caption_data import clean_caption, mirrored
from naming import named_in_sight
from PIL import Image
from pycocotools.coco import COCO
from split import kept_out

from aas import rle
from aas.geometry import deepest_xy
from aas.images import read_image
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import load_pipeline, noun_chunks
from aas.records import Phrase
from aas.store.results import result_of, write_result
from aas.store.runs import RunFolder

TRAIN, CHOOSE, PHOTOGRAPHS = "train", "choose", "photographs"
N_CATEGORIES = 5  # in a list, at most
LEAST_SHARE, LEAST_LEFT = 0.002, 0.35  # of the picture that a thing covers; of a thing that a crop leaves
LEAST_AREA = 0.55  # of a photograph that a crop keeps

Span = tuple[int, int]


@dataclass(frozen=True)
class Scene:
    """A photograph uint8 [H, W, 3], `things` category name -> bool [H, W], and its captions."""

    image_id: int
    pixels: np.ndarray
    things: dict[str, np.ndarray]
    captions: tuple[str, ...]


def scenes(data: Path, split: str, is_done: Callable[[int], bool] = lambda image_id: False) -> Iterator[Scene]:
    """With instance masks: for training (train2017, and of val2017 what is not kept out), or for choosing. Those that
    are done are passed over, and not even read."""
    choose, figures = kept_out(data)
    for subset in ("train2017", "val2017"):
        annotations = data / "coco/annotations"
        coco = COCO(annotations / f"instances_subset_{subset}.json")
        captions = COCO(annotations / f"captions_subset_{subset}.json").imgToAnns
        for image_id in sorted(coco.imgs):
            if (image_id in choose) != (split == CHOOSE) or image_id in figures or is_done(image_id):
                continue
            pixels = read_image(data / f"coco/images/{subset}" / coco.imgs[image_id]["file_name"])
            said = tuple(clean_caption(one["caption"]) for one in captions.get(image_id, ()))
            yield Scene(image_id, pixels, things_of(coco, image_id), said)


def things_of(coco: COCO, image_id: int) -> dict[str, np.ndarray]:
    """All things of a category together."""
    things: dict[str, np.ndarray] = {}
    for one in coco.imgToAnns[image_id]:
        name, mask = coco.cats[one["category_id"]]["name"], coco.annToMask(one).astype(bool)
        things[name] = mask | things.get(name, False)
    return things


def cropped(scene: Scene, rng: np.random.Generator) -> Scene:
    """A random crop of at least `LEAST_AREA`, mirrored half of the time; things that it leaves little of are gone."""
    height, width = scene.pixels.shape[:2]
    scale = np.sqrt(rng.uniform(LEAST_AREA, 1)) * np.exp(rng.uniform(-0.15, 0.15) * np.array([1, -1]))
    rows, columns = (min(n, int(n * s)) for n, s in zip((height, width), scale, strict=True))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    step = -1 if rng.random() < 0.5 else 1
    window = (slice(top, top + rows), slice(left, left + columns))
    things = {name: mask[window][:, ::step] for name, mask in scene.things.items()}
    kept = {name: mask for name, mask in things.items() if mask.sum() >= LEAST_LEFT * scene.things[name].sum()}
    captions = scene.captions if step == 1 else tuple(map(mirrored, scene.captions))
    return Scene(scene.image_id, np.ascontiguousarray(scene.pixels[window][:, ::step]), kept, captions)


def listed(scene: Scene, rng: np.random.Generator) -> tuple[str, list[tuple[Span, str]]]:
    """A sentence of some categories in sight, "A dog, a cat and a bench.", large ones rather than small ones, and where
    each stands in it."""
    shares = {name: mask.mean() for name, mask in scene.things.items() if mask.mean() >= LEAST_SHARE}
    if not shares:
        return "", []
    weights = np.sqrt(list(shares.values()))
    n = int(rng.integers(1, min(N_CATEGORIES, len(shares)) + 1))
    text, found = "", []
    names = rng.choice(list(shares), n, replace=False, p=weights / weights.sum())
    for i, name in enumerate(map(str, names)):
        text += "" if i == 0 else " and " if i == n - 1 else ", "
        words = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
        found.append(((len(text), len(text) + len(words)), name))
        text += words
    return f"{text[0].upper()}{text[1:]}.", found


class Reader:
    """Finds the phrases of a caption that name a category in sight, as evaluate.py does."""

    def __init__(self, names: Sequence[str]):
        self.pipeline = load_pipeline("embedded")
        self.matcher = CategoryMatcher(self.pipeline, names)

    def __call__(self, caption: str, scene: Scene) -> list[tuple[Span, str]]:
        found = []
        for chunk in noun_chunks(self.pipeline(caption)):
            name = named_in_sight(self.matcher, chunk.root.text, scene.things)
            if name is not None:
                found.append(((chunk.start_char, chunk.end_char), name))
        return found


def write_runs(data: Path, work: Path, n_views: int) -> None:
    """`work`/train and `work`/choose, of the photographs in `work`/photographs; those that are there are kept.

    `n_views`: how many pictures of a photograph are learned from: the first is the photograph itself, the others are
    crops.
    """
    names = [one["name"] for one in COCO(data / "coco/annotations/instances_subset_val2017.json").cats.values()]
    reader = Reader(names)
    (work / PHOTOGRAPHS).mkdir(parents=True, exist_ok=True)
    for split in (TRAIN, CHOOSE):
        run = RunFolder(work / split, ".json")
        run.path.mkdir(exist_ok=True)
        run.begin("import", {"format": "coco", "split": split, "n_views": n_views}, {})
        n, done = 1 if split == CHOOSE else n_views, set(run.items())
        # A photograph with a view without phrases is looked at again: nothing tells it from one that was not looked at.
        for scene in scenes(data, split, lambda image_id: done.issuperset(_keys(image_id, n))):  # noqa: B023
            for key, view, text, found in views(scene, n, reader, with_lists=split == TRAIN):
                if found and key not in done:
                    _write(run, work / PHOTOGRAPHS / f"{key}.jpg", key, view, text, found)


def views(
    scene: Scene, n_views: int, reader: Reader, with_lists: bool = False
) -> Iterator[tuple[str, Scene, str, list[tuple[Span, str]]]]:
    """Key, picture, text, and the phrases in it."""
    rng = np.random.default_rng(scene.image_id)
    for i, key in enumerate(_keys(scene.image_id, n_views)):
        view = cropped(scene, rng) if i else scene
        if not scene.captions:
            yield key, view, *listed(view, rng)
            continue
        text = view.captions[i % len(view.captions)]
        found = reader(text, view)
        if with_lists:
            more, named = listed(view, rng)
            start = len(text) + 1
            found += [((begin + start, end + start), name) for (begin, end), name in named]
            text = f"{text} {more}".rstrip()
        yield key, view, text, found


def _keys(image_id: int, n_views: int) -> list[str]:
    return [f"{image_id}-{i}" for i in range(n_views)]


def _write(run: RunFolder, picture: Path, key: str, view: Scene, text: str, found: list[tuple[Span, str]]) -> None:
    if not picture.exists():
        Image.fromarray(view.pixels).save(picture, quality=95)
    masks = [view.things[name] for _, name in found]
    result = result_of(
        [Phrase(text[slice(*span)], span, span, ()) for span, _ in found],
        [rle.of_mask(mask) for mask in masks],
        [deepest_xy(mask) for mask in masks],
        [1.0] * len(found),
        image_id=key,
        image=os.path.relpath(picture, run.path),
        caption=text,
    )
    write_result(run.item_path(key), result)
