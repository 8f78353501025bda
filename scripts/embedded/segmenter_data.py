"""Photographs, their things, and the prompts that train the embedded segmenter.

Photographs and masks stay at their own size in memory; every epoch sees other crops, colours, pasted things
and clicks of them. Grids: the input is SIZE px square, masks are SIZE/2, semantic maps SIZE/8.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from split import manifest

from aas.images.pixels import opened

SIZE = 512
MASK_STRIDE, SEMANTIC_STRIDE = 2, 8
PERSON = 0  # its category
IGNORE, NOT_A_THING = 255, 254  # in semantic maps; the latter: stuff or void, which one is not annotated
N_CLASSES = 133  # COCO's things and stuff; categories from here on are of photographs that are not COCO's
MIN_CELLS = 24.0  # a thing with less than this on the mask grid is not asked for


@dataclass(frozen=True)
class Thing:
    """An instance or a stuff segment; `rle` is a COCO RLE at the photograph's size, `category` 0..N_CLASSES - 1 or,
    where only the extent is learned, more."""

    rle: dict
    category: int
    is_stuff: bool
    is_crowd: bool = False


@dataclass(frozen=True)
class Photograph:
    """`image` uint8 [H, W, 3] RGB; `semantic` uint8 [H, W] of categories, IGNORE or NOT_A_THING.

    `is_complete`: every thing of a category that is here at all has its mask.
    """

    image_id: int
    image: np.ndarray
    things: list[Thing]
    semantic: np.ndarray
    is_complete: bool = True


@dataclass(frozen=True)
class Example:
    """One augmented photograph: `image` uint8 [SIZE, SIZE, 3], zero-padding where not `valid` (bool [SIZE, SIZE]);
    `masks` float32 [N, SIZE/2, SIZE/2] in [0, 1]; `categories` int [N]; `is_stuff` bool [N]; `semantic` uint8;
    `is_complete`: see Photograph."""

    image: np.ndarray
    valid: np.ndarray
    masks: np.ndarray
    categories: np.ndarray
    is_stuff: np.ndarray
    semantic: np.ndarray
    is_complete: bool


def read_rgb(path: Path) -> np.ndarray:
    with opened(path, path.name) as image:
        return np.asarray(image.convert("RGB"))


def read_other_masks(data_dir: Path) -> list[Photograph]:
    """The photographs of `masks/` (animals, facades, breadboards, mushrooms), each folder's categories its own."""
    photographs: list[Photograph] = []
    first = N_CLASSES
    for file in sorted((data_dir / "masks").glob("*/instances.json")):
        coco = COCO(str(file))
        category = {c: first + i for i, c in enumerate(sorted(coco.cats))}
        first += len(category)
        for record in coco.loadImgs(sorted(coco.imgs)):
            image = read_rgb(file.parent / "images" / record["file_name"])
            annotations = coco.imgToAnns[record["id"]]
            things = [Thing(coco.annToRLE(a), category[a["category_id"]], False) for a in annotations]
            semantic = np.full(image.shape[:2], IGNORE, np.uint8)
            photographs.append(Photograph(-1, image, things, semantic))
    return photographs


def read_persons(data_dir: Path, without: Collection[int]) -> list[Photograph]:
    """One person of each photograph that has no other mask; those with the ids `without` are left out."""
    coco = COCO(str(data_dir / "coco_text/person_one_per_image_val2017.json"))
    files = {int(row["image_id"]): row["file"] for row in manifest(data_dir)}
    photographs = []
    for image_id in sorted(set(coco.imgs) - set(without)):
        image = read_rgb(data_dir / "coco" / files[image_id])
        things = [_resized_thing(coco, annotation, image.shape[:2]) for annotation in coco.imgToAnns[image_id]]
        semantic = np.full(image.shape[:2], IGNORE, np.uint8)
        photographs.append(Photograph(image_id, image, things, semantic, is_complete=False))
    return photographs


def _resized_thing(coco: COCO, annotation: dict, size_hw: tuple[int, int]) -> Thing:
    """A person at the size of a photograph that was made smaller."""
    mask = cv2.resize(coco.annToMask(annotation), size_hw[::-1], interpolation=cv2.INTER_AREA)
    return Thing(coco_mask.encode(np.asfortranarray(mask)), PERSON, False)


def read_photographs(data_dir: Path, split: str) -> list[Photograph]:
    """COCO instances (and, where annotated, panoptic stuff) of `split` ("train2017" or "val2017")."""
    coco_dir = data_dir / "coco"
    coco = COCO(str(coco_dir / f"annotations/instances_subset_{split}.json"))
    panoptic = json.loads((coco_dir / f"annotations/panoptic_subset_{split}.json").read_text())
    class_of = {category["id"]: i for i, category in enumerate(panoptic["categories"])}
    things_first = sum(category["isthing"] for category in panoptic["categories"])
    segments_of = {annotation["image_id"]: annotation for annotation in panoptic["annotations"]}

    photographs = []
    for record in coco.loadImgs(sorted(coco.imgs)):
        image = read_rgb(coco_dir / "images" / split / record["file_name"])
        things = [
            Thing(coco.annToRLE(a), class_of[a["category_id"]], False, bool(a["iscrowd"]))
            for a in coco.imgToAnns[record["id"]]
        ]
        semantic = np.full(image.shape[:2], NOT_A_THING, np.uint8)
        for thing in sorted(things, key=lambda t: coco_mask.area(t.rle), reverse=True):
            semantic[coco_mask.decode(thing.rle) > 0] = thing.category
        if record["id"] in segments_of:
            annotation = segments_of[record["id"]]
            path = coco_dir / f"annotations/panoptic_subset_{split}" / annotation["file_name"]
            segment_ids = read_rgb(path).astype(np.int32) @ np.array([1, 256, 256**2])
            semantic[:] = IGNORE
            for segment in annotation["segments_info"]:
                category = class_of[segment["category_id"]]
                mask = segment_ids == segment["id"]
                semantic[mask] = category
                if category >= things_first:
                    things.append(Thing(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))), category, True))
        photographs.append(Photograph(record["id"], image, things, semantic))
    return photographs


@dataclass(frozen=True)
class Crop:
    """Resize to `scaled_hw`, mirror if `flip`, cut SIZE x SIZE at `offset_yx` (a multiple of 8), pad at the end."""

    scaled_hw: tuple[int, int]
    offset_yx: tuple[int, int]
    flip: bool

    def __call__(self, array: np.ndarray, stride: int = 1, nearest: bool = False, fill: int = 0) -> np.ndarray:
        """`array` [H, W, ...] of the photograph -> [SIZE/stride, SIZE/stride, ...]."""
        height, width = (max(1, round(side / stride)) for side in self.scaled_hw)
        shrinks = height * width < array.shape[0] * array.shape[1]
        interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        scaled = cv2.resize(array, (width, height), interpolation=interpolation)
        if self.flip:
            scaled = scaled[:, ::-1]
        y, x = (offset // stride for offset in self.offset_yx)
        side = SIZE // stride
        part = scaled[y : y + side, x : x + side]
        out = np.full((side, side, *array.shape[2:]), fill, array.dtype)
        out[: part.shape[0], : part.shape[1]] = part
        return out


def random_crop(size_hw: tuple[int, int], rng: np.random.Generator) -> Crop:
    """A quarter as at inference (the whole photograph), the rest zoomed by 0.7 to 2 and stretched a little."""
    scale = SIZE / max(size_hw)
    stretch = 1.0
    if rng.random() > 0.25:
        scale *= np.exp(rng.uniform(np.log(0.7), np.log(2.0)))
        stretch = np.exp(rng.uniform(-0.15, 0.15))
    height, width = round(size_hw[0] * scale * stretch), round(size_hw[1] * scale / stretch)
    offset_y, offset_x = (8 * (int(rng.integers(0, max(side - SIZE, 0) + 1)) // 8) for side in (height, width))
    return Crop((height, width), (offset_y, offset_x), bool(rng.random() < 0.5))


def jitter_colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation, tint, now and then grey or blurred; uint8 in and out."""
    x = image.astype(np.float32)
    if rng.random() < 0.8:
        grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
        saturation = 0.0 if rng.random() < 0.06 else rng.uniform(0.5, 1.5)
        x = grey[..., None] * np.float32(1 - saturation) + x * np.float32(saturation)
        contrast, brightness = rng.uniform(0.6, 1.4), rng.uniform(0.65, 1.35)
        tint = rng.uniform(0.9, 1.1, 3).astype(np.float32)
        x = ((x - 118) * np.float32(contrast) + 118) * (np.float32(brightness) * tint)
    if rng.random() < 0.1:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.5, 1.5))
    return np.clip(x, 0, 255).astype(np.uint8)


def paste(onto: Example, photograph: Photograph, rng: np.random.Generator) -> Example:
    """Simple copy-paste (Ghiasi et al. 2021, arXiv 2012.07177): one to three things of another photograph."""
    crop = random_crop(photograph.image.shape[:2], rng)
    candidates = [t for t in photograph.things if not t.is_stuff and not t.is_crowd]
    if not candidates:
        return onto
    image, masks, semantic = onto.image.copy(), onto.masks, onto.semantic.copy()
    categories, is_stuff = list(onto.categories), list(onto.is_stuff)
    source = jitter_colours(crop(photograph.image), rng)
    for i in rng.permutation(len(candidates))[: rng.integers(1, 4)]:
        alpha = crop(coco_mask.decode(candidates[i].rle) * np.uint8(255)).astype(np.float32) / 255
        alpha *= onto.valid
        if not 0.004 < alpha.mean() < 0.3:
            continue
        alpha = cv2.GaussianBlur(alpha, (0, 0), 1.0)
        image = (image * (1 - alpha[..., None]) + source * alpha[..., None]).astype(np.uint8)
        on_grid = cv2.resize(alpha, None, fx=1 / MASK_STRIDE, fy=1 / MASK_STRIDE, interpolation=cv2.INTER_AREA)
        masks = np.concatenate([masks * (1 - on_grid), on_grid[None]])
        categories.append(candidates[i].category)
        is_stuff.append(False)
        coarse = alpha[SEMANTIC_STRIDE // 2 :: SEMANTIC_STRIDE, SEMANTIC_STRIDE // 2 :: SEMANTIC_STRIDE]
        semantic[coarse > 0.5] = candidates[i].category if candidates[i].category < N_CLASSES else IGNORE
    is_complete = onto.is_complete and photograph.is_complete
    return Example(image, onto.valid, masks, np.array(categories), np.array(is_stuff), semantic, is_complete)


def augment(photograph: Photograph, other: Photograph, rng: np.random.Generator) -> Example | None:
    """A random view of `photograph`, half the time with things of `other` pasted in; None if nothing is in view."""
    crop = random_crop(photograph.image.shape[:2], rng)
    things = [t for t in photograph.things if not t.is_crowd]
    side = SIZE // MASK_STRIDE
    masks = [crop(coco_mask.decode(t.rle) * np.uint8(255), MASK_STRIDE) for t in things]
    example = Example(
        jitter_colours(crop(photograph.image), rng),
        crop(np.ones(photograph.image.shape[:2], np.uint8)) > 0,
        np.stack(masks).astype(np.float32) / 255 if masks else np.zeros((0, side, side), np.float32),
        np.array([t.category for t in things], int),
        np.array([t.is_stuff for t in things], bool),
        crop(photograph.semantic, SEMANTIC_STRIDE, nearest=True, fill=IGNORE),
        photograph.is_complete,
    )
    if rng.random() < 0.5:
        example = paste(example, other, rng)
    seen = example.masks.sum((1, 2)) >= MIN_CELLS
    if not seen.any():
        return None
    return Example(
        example.image,
        example.valid,
        example.masks[seen],
        example.categories[seen],
        example.is_stuff[seen],
        example.semantic,
        example.is_complete,
    )


def choose_things(example: Example, n_prompts: int, rng: np.random.Generator) -> np.ndarray:
    """Indices [n_prompts]: every category equally often, inside it by the side length of the thing."""
    side = np.sqrt(example.masks.sum((1, 2)))
    weight = np.zeros(len(side))
    for category in np.unique(example.categories):
        of_category = example.categories == category
        # A category with many things in view gets a little more, or its smaller things are never asked for.
        weight[of_category] = side[of_category] / side[of_category].sum() * of_category.sum() ** 0.3
    return rng.choice(len(side), n_prompts, p=weight / weight.sum())


def click(masks: np.ndarray, target: int, rng: np.random.Generator) -> np.ndarray:
    """A point (x, y) in input pixels for thing `target` of `masks` [N, h, w]: mostly uniform inside it, sometimes
    deep inside, sometimes a little beside it (never on another annotated thing), as attention peaks are."""
    mask = masks[target]
    inside = mask > min(0.5, 0.8 * mask.max())
    kind = rng.random()
    weight = inside.astype(np.float64)
    if kind < 0.25:
        weight = cv2.distanceTransform(np.pad(inside.astype(np.uint8), 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
    weight = weight.astype(np.float64).ravel()
    cell = rng.choice(weight.size, p=weight / weight.sum())
    y, x = divmod(int(cell), mask.shape[1])
    if kind > 0.85:
        height, width = mask.shape
        moved_y, moved_x = np.rint(rng.normal((y, x), 5)).astype(int)
        in_view = 0 <= moved_y < height and 0 <= moved_x < width
        if in_view and masks[:, moved_y, moved_x].max() <= max(0.2, mask[moved_y, moved_x]):
            y, x = moved_y, moved_x
    return (np.array([x, y]) + rng.random(2)) * MASK_STRIDE - 0.5


def box_of(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Box (x0, y0, x1, y1) in input pixels around `mask` [h, w], each side moved by up to a tenth of the box."""
    ys, xs = np.nonzero(mask > min(0.5, 0.8 * mask.max()))
    x0, y0, x1, y1 = xs.min(), ys.min(), xs.max() + 1, ys.max() + 1
    noise = rng.uniform(-0.1, 0.1, 4) * (x1 - x0, y1 - y0, x1 - x0, y1 - y0)
    return np.clip((np.array([x0, y0, x1, y1]) + noise) * MASK_STRIDE, 0, SIZE)


def group_of(example: Example, target: int) -> np.ndarray:
    """Mask [h, w] of all things of the target's category."""
    return example.masks[example.categories == example.categories[target]].max(0)
