"""The same scenes in every format of given expressions: RefCOCO's pickles, panoptic narratives, ReasonSeg."""

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels, half-open


@dataclass(frozen=True)
class Thing:
    """`boxes`: one, or two side by side that share their bottom edge, the second lower: an L."""

    name: str
    boxes: tuple[Box, ...]
    is_thing: bool = True

    def mask(self, size_hw: tuple[int, int]) -> np.ndarray:
        mask = np.zeros(size_hw, bool)
        for x0, y0, x1, y1 in self.boxes:
            mask[y0:y1, x0:x1] = True
        return mask

    def outline(self) -> list[list[int]]:
        """Whole pixels, all of which belong to the thing."""
        x0, y0, x1, y1 = self.boxes[0]
        if len(self.boxes) == 1:
            return [[x0, y0], [x1 - 1, y0], [x1 - 1, y1 - 1], [x0, y1 - 1]]
        (a, top, b, bottom) = self.boxes[1]
        assert (a, bottom) == (x1, y1) and top > y0
        return [[x0, y0], [x1 - 1, y0], [x1 - 1, top], [b - 1, top], [b - 1, bottom - 1], [x0, bottom - 1]]


@dataclass(frozen=True)
class Scene:
    image_id: int
    size_hw: tuple[int, int]
    things: tuple[Thing, ...]


SCENES = (
    Scene(
        7,
        (120, 180),
        (
            Thing("red box", ((10, 10, 60, 50),)),
            Thing("green floor", ((0, 70, 90, 120), (90, 100, 180, 120)), is_thing=False),
            Thing("blue box", ((110, 20, 170, 80),)),
        ),
    ),
    Scene(42, (160, 110), (Thing("tall tower", ((40, 5, 70, 150),)), Thing("small café", ((80, 100, 105, 140),)))),
    Scene(285, (64, 64), (Thing("grey sky", ((0, 0, 64, 30),), is_thing=False),)),
)
CATEGORIES = {True: 1, False: 184}


def file_name(scene: Scene) -> str:
    return f"{scene.image_id:012d}.png"


def run_lengths(mask: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def truth(scene: Scene, *things: Thing) -> dict:
    return run_lengths(np.any([thing.mask(scene.size_hw) for thing in things], axis=0))


def photograph(scene: Scene) -> Image.Image:
    """Each thing in a colour of its own on noise."""
    random = np.random.default_rng(scene.image_id)
    pixels = random.integers(90, 120, (*scene.size_hw, 3), np.uint8)
    for thing in scene.things:
        pixels[thing.mask(scene.size_hw)] = random.integers(0, 256, 3, np.uint8)
    return Image.fromarray(pixels)


def write_all(folder: Path) -> Path:
    """`images/`, `refcoco/`, `png.json`, `panoptic.json`, `panoptic/` and `reasonseg/`."""
    (folder / "images").mkdir(parents=True)
    for scene in SCENES:
        photograph(scene).save(folder / "images" / file_name(scene))
    write_refcoco(folder / "refcoco")
    write_png(folder)
    write_reasonseg(folder / "reasonseg")
    return folder


def segmentation(thing: Thing, size_hw: tuple[int, int], number: int) -> object:
    """In turn as polygons, numbers of run lengths, and compressed run lengths, all of which occur."""
    if number % 3 == 0 or len(thing.boxes) > 1:
        return [[x0, y0, x1, y0, x1, y1, x0, y1] for x0, y0, x1, y1 in thing.boxes]
    if number % 3 == 1:
        return run_lengths(thing.mask(size_hw))
    flat = thing.mask(size_hw).flatten(order="F").astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, len(flat)]).tolist()
    return {"size": list(size_hw), "counts": counts if flat[0] == 0 else [0, *counts]}


def write_refcoco(folder: Path) -> None:
    folder.mkdir()
    images, annotations, refs = [], [], []
    for scene in SCENES:
        height, width = scene.size_hw
        images.append({"id": scene.image_id, "file_name": file_name(scene), "height": height, "width": width})
        for thing in scene.things:
            n = len(annotations)
            parts = {"segmentation": segmentation(thing, scene.size_hw, n), "category_id": CATEGORIES[thing.is_thing]}
            annotations.append({"id": 1000 + n, "image_id": scene.image_id, "iscrowd": 0, **parts})
            sentences = [
                {"sent_id": 10 * n + k, "sent": words, "raw": words, "tokens": words.split()}
                for k, words in enumerate((thing.name, f"the {thing.name} over there"))
            ]
            ref = {"ref_id": n, "ann_id": 1000 + n, "image_id": scene.image_id, "sentences": sentences}
            ref |= {"file_name": f"COCO_{n}.jpg", "sent_ids": [s["sent_id"] for s in sentences], "category_id": 1}
            refs.append(ref | {"split": "testB" if scene is SCENES[-1] else "val"})
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=0))
    (folder / "refs(google).p").write_bytes(pickle.dumps(refs[:1], protocol=2))
    (folder / "instances.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    )


def segment_id(scene: Scene, number: int) -> int:
    return 70_000 * (number + 1) + scene.image_id


def write_png(folder: Path) -> None:
    """One narrative names every thing; in the first scene another one names both boxes by one word."""
    (folder / "panoptic").mkdir()
    images, annotations, narratives = [], [], []
    for scene in SCENES:
        height, width = scene.size_hw
        images.append({"id": scene.image_id, "file_name": file_name(scene), "height": height, "width": width})
        ids = np.zeros(scene.size_hw, np.int64)
        infos = []
        for n, thing in enumerate(scene.things):
            ids[thing.mask(scene.size_hw)] = segment_id(scene, n)
            infos.append({"id": segment_id(scene, n), "category_id": CATEGORIES[thing.is_thing], "iscrowd": 0})
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2).astype(np.uint8)
        Image.fromarray(colours).save(folder / "panoptic" / file_name(scene))
        annotations.append({"image_id": scene.image_id, "file_name": file_name(scene), "segments_info": infos})
        phrases = [(f"a {thing.name}", [segment_id(scene, n)]) for n, thing in enumerate(scene.things)]
        narratives.append(narrative(scene, phrases))
        if scene is SCENES[0]:
            narratives.append(narrative(scene, [("two boxes", [segment_id(scene, 0), segment_id(scene, 2)])]))
    categories = [{"id": i, "isthing": int(is_thing), "name": str(i)} for is_thing, i in CATEGORIES.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    (folder / "png.json").write_text(json.dumps(narratives))


def narrative(scene: Scene, phrases: list[tuple[str, list[int]]]) -> dict:
    """ "In this image there is a red box, a blue box." with its utterances, as the dataset cuts them."""
    parts = [{"utterance": "In this image there is", "segment_ids": [], "noun": False, "plural": False}]
    for words, ids in phrases:
        named = {"utterance": words, "segment_ids": list(map(str, ids)), "noun": True, "plural": len(ids) > 1}
        parts += [named, {"utterance": ",", "segment_ids": [], "noun": False, "plural": False}]
    parts[-1] = parts[-1] | {"utterance": "."}
    caption = f"In this image there is {', '.join(words for words, _ in phrases)}. "
    return {"image_id": str(scene.image_id), "caption": caption, "segments": parts}


def write_reasonseg(folder: Path) -> None:
    """A photograph for each thing: `SCENE_THING.jpg`."""
    folder.mkdir()
    for scene in SCENES:
        for n, thing in enumerate(scene.things):
            photograph(scene).save(folder / f"{scene.image_id}_{n}.jpg")
            shapes = [
                {"label": "target", "points": thing.outline(), "shape_type": "polygon"},
                {"label": "flag", "points": [[0, 0], [1, 1], [0, 1]], "shape_type": "polygon"},
            ]
            text = [f"Where is the {thing.name}?", "And again?"] if n % 2 else [thing.name]
            content = json.dumps({"text": text, "is_sentence": bool(n % 2), "shapes": shapes}, ensure_ascii=False)
            (folder / f"{scene.image_id}_{n}.json").write_bytes(content.encode("cp1252" if n else "utf-8"))
