"""Run folders to export: scenes with holes, parts and hostile words, and photographs of COCO with their true masks."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from aas import rle
from aas.records import Phrase
from aas.store.keys import quoted
from aas.store.results import Result, read_result, result_of, write_result
from aas.store.runs import RunFolder

HW = (90, 140)
HOSTILE = 'a <script>alert("1")</script> & \x00\x1b[31m\u202edog\u202c של \U0001f436 ]]>'


def box(x0: int, y0: int, x1: int, y1: int, size_hw: tuple[int, int] = HW) -> np.ndarray:
    mask = np.zeros(size_hw, bool)
    mask[y0:y1, x0:x1] = True
    return mask


RING = box(10, 10, 50, 60) & ~box(20, 20, 40, 50)  # a hole
PARTS = box(60, 5, 80, 25) | box(90, 40, 130, 44) | box(100, 60, 101, 61)  # two boxes and a single pixel
EDGE = box(0, 0, 140, 3) | box(137, 0, 140, 90)  # along the picture's edges
INNER = box(24, 24, 36, 46)  # inside the ring's hole
OVER = box(100, 30, 138, 70)  # over PARTS and EDGE


def grounded(key: str, image: str, words: Sequence[str], masks: Sequence[np.ndarray]) -> Result:
    """A result whose caption is the words, joined."""
    spans, at = [], 0
    for word in words:
        spans.append((at, at + len(word)))
        at += len(word) + 5
    phrases = [Phrase(word, span, span, (i,)) for i, (word, span) in enumerate(zip(words, spans, strict=True))]
    points = [tuple(map(int, np.argwhere(mask)[0][::-1])) if mask.any() else (0, 0) for mask in masks]
    return result_of(
        phrases,
        [rle.of_mask(mask) for mask in masks],
        points,
        [0.5 + i / 16 for i in range(len(masks))],
        image_id=key,
        image=image,
        caption=" and ".join(words),
        question="What is it?",
    )


def photograph(size_hw: tuple[int, int] = HW) -> Image.Image:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return Image.fromarray(np.stack([x % 256, y % 256, (x + y) % 256], axis=-1).astype(np.uint8))


def write_run(folder: Path) -> Path:
    """Four photographs: a JPEG, a PNG below a folder with a hostile name, a JPEG that EXIF turns, a WebP of nothing."""
    photos, run = folder / "photos", folder / "run"
    photos.mkdir(parents=True)
    photograph().save(photos / "plain.jpg", quality=95)
    photograph().save(photos / "odd.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph((HW[1], HW[0])).save(photos / "turned.jpg", exif=exif, quality=95)
    photograph().save(photos / "empty.webp")
    results = [
        grounded("plain", "../photos/plain.jpg", ["A ring", "two boxes", "the inner box"], [RING, PARTS, INNER]),
        grounded(f"sub/{HOSTILE}", "../photos/odd.png", [HOSTILE, "An edge", "a box"], [RING, EDGE, OVER]),
        grounded("turned", "../photos/turned.jpg", ["a ring", "Nothing"], [RING, RING & INNER]),
        grounded("empty", "../photos/empty.webp", [], []),
    ]
    RunFolder(run, ".json").begin("ground", {}, {"n_images": len(results)})
    for result in results:
        write_result(RunFolder(run, ".json").item_path(str(result.image_id)), result)
    return run


def write_coco_run(folder: Path, shared: Path, n: int) -> Path:
    """The true masks of the first `n` photographs of COCO that have some, at most eight of each, as a run."""
    coco = shared / "data/coco"
    content = json.loads((coco / "annotations/instances_subset_val2017.json").read_text())
    names = {one["id"]: one["name"] for one in content["categories"]}
    run = RunFolder(folder / "run", ".json")
    run.begin("ground", {}, {"n_images": n})
    for image in content["images"]:
        mine = [one for one in content["annotations"] if one["image_id"] == image["id"]][:8]
        path = coco / "images/val2017" / image["file_name"]
        if mine and path.is_file() and n:
            size_hw = (image["height"], image["width"])
            masks = [rle.decoded(rle.compressed(one["segmentation"], size_hw)) for one in mine]
            words = [f"a {names[one['category_id']]}" for one in mine]
            write_result(run.item_path(str(image["id"])), grounded(str(image["id"]), str(path), words, masks))
            n -= 1
    return run.path


def truth_of(run: Path) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Name of the files -> phrase and mask of all that is not empty."""
    found = {}
    for key, path in RunFolder(run, ".json").items().items():
        result = read_result(path)
        pairs = zip(result.phrases, map(rle.decoded, result.pred_masks), strict=True)
        found[quoted(key)] = [(phrase, mask) for phrase, mask in pairs if mask.any()]
    return found


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max(1, (one | other).sum()))


def pixels(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))
