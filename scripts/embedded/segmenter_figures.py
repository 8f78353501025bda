"""What a segmenter is worth on kept-out photographs, by one click inside each thing."""

import math

import numpy as np
from pycocotools import mask as coco_mask
from segmenter_data import Photograph
from segmenter_losses import LAST

from aas.segmenters.embedded import EmbeddedSegmenter


def clicks_inside(photograph: Photograph) -> list[tuple[int, np.ndarray]]:
    """(index of the thing, point (x, y)): one uniformly random pixel of every instance, the same in every run."""
    rng = np.random.default_rng(photograph.image_id)
    clicks = []
    for i, thing in enumerate(photograph.things):
        if thing.is_stuff or thing.is_crowd or coco_mask.area(thing.rle) < 64:
            continue
        ys, xs = np.nonzero(coco_mask.decode(thing.rle))
        pixel = rng.integers(len(ys))
        clicks.append((i, np.array([xs[pixel], ys[pixel]], float)))
    return clicks


def ious(masks: np.ndarray, rle: dict) -> np.ndarray:
    """IoU of each of `masks` bool [n, H, W] with `rle`."""
    encoded = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))
    return coco_mask.iou(encoded, [rle], [0])[:, 0]


ANSWERS = ("last", "best_score", "oracle", "disc", "image_box")


def ious_of_answers(masks: np.ndarray, scores: np.ndarray, rles: list[dict]) -> np.ndarray:
    """IoU of each of `ANSWERS`, against the best of `rles`; `masks` bool [5, H, W] are SAM's three, disc and box."""
    best_of = np.max([ious(masks, rle) for rle in rles], axis=0)
    return np.array([best_of[LAST], best_of[scores.argmax()], best_of[:3].max(), best_of[3], best_of[4]])


def with_baselines(masks: np.ndarray, point_xy: np.ndarray) -> np.ndarray:
    """`masks` bool [3, H, W], then a disc around the point that covers 9 % (as instances do on average), then all."""
    height, width = masks.shape[1:]
    y, x = np.mgrid[:height, :width]
    disc = (x - point_xy[0]) ** 2 + (y - point_xy[1]) ** 2 < 0.09 * height * width / math.pi
    return np.concatenate([masks, disc[None], np.ones((1, height, width), bool)])


def measure(segmenter: EmbeddedSegmenter, photographs: list[Photograph]) -> dict[str, float]:
    """Mean IoUs (fractions of 1) of one click inside a thing, at the photographs' own size.

    Per instance: `ANSWERS`, `last` by COCO's three sizes, and how far the score of the last mask is off. `phrase_*`:
    as phrases are judged: per photograph and category one instance is clicked, and the best IoU with the
    category's union or any single instance counts.
    """
    instances, areas, score_errors, phrases = [], [], [], []
    for photograph in photographs:
        clicks = clicks_inside(photograph)
        if not clicks:
            continue
        points = np.stack([point for _, point in clicks])[:, None]
        candidates = segmenter.masks(segmenter.encode([photograph.image])[0], points)
        asked: set[int] = set()
        for row in np.random.default_rng(photograph.image_id).permutation(len(clicks)):
            thing, scores = photograph.things[clicks[row][0]], candidates.scores[row]
            masks = with_baselines(candidates.masks[row], clicks[row][1])
            instances.append(ious_of_answers(masks, scores, [thing.rle]))
            areas.append(int(coco_mask.area(thing.rle)))
            score_errors.append(abs(scores[LAST] - instances[-1][0]))
            if thing.category not in asked:
                asked.add(thing.category)
                same = [t.rle for t in photograph.things if t.category == thing.category]
                phrases.append(ious_of_answers(masks, scores, [coco_mask.merge(same), *same]))
    last, size = np.array(instances)[:, 0], np.digitize(areas, (32**2, 96**2))
    figures = dict(zip(ANSWERS, np.mean(instances, 0), strict=True))
    figures |= {f"last_{name}": last[size == i].mean() for i, name in enumerate(("small", "medium", "large"))}
    figures["score_error"] = np.mean(score_errors)
    figures |= {f"phrase_{name}": value for name, value in zip(ANSWERS, np.mean(phrases, 0), strict=True)}
    return {name: round(float(value), 4) for name, value in figures.items()} | {
        "n_instances": len(instances),
        "n_phrases": len(phrases),
    }
