"""What grounded captions and GranD-f's annotations are held against each other in: pairs, detections, captions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from aas import rle
from aas.datasets.coco import TrueAnnotation, in_order, usable_ids
from aas.datasets.grandf import GcgAnswer, GcgTruth
from aas.metrics.captions import Caption
from aas.metrics.detections import Detection, Detections, TrueMask
from aas.metrics.gcg import PROTOCOLS, ImagePairs
from aas.metrics.pairing import iou_matrix
from aas.metrics.text_similarity import TextEncoder


def all_pairs(truth: GcgTruth, answers: Mapping[str, GcgAnswer], encoder: TextEncoder) -> dict[str, dict[str, Any]]:
    """For each protocol that differs in it, image -> ImagePairs."""
    encoder.embed(label for labels in truth.labels.values() for label in labels)
    encoder.embed(phrase for answer in answers.values() for phrase in answer.phrases)
    true = {"strict": _by_image(truth.masks), "glamm": _by_image(_last_of_each_id(truth.masks))}
    pairs: dict[str, dict[str, Any]] = {name: {} for name in true}
    for key in tqdm(truth.images, unit="image", desc="pairing masks"):
        answer = answers.get(key, GcgAnswer())
        similarities = encoder.cosines(truth.labels.get(key, []), answer.phrases)
        empty = np.array([rle.area(mask) == 0 for mask in answer.masks], bool)
        for name, by_image in true.items():
            masks = [annotation.rle for annotation in by_image.get(key, [])]
            true_empty = np.array([rle.area(mask) == 0 for mask in masks], bool)
            both_empty = empty[:, None] & true_empty[None]
            pairs[name][key] = ImagePairs(iou_matrix(answer.masks, masks), similarities, both_empty)
    return pairs


def _by_image(annotations: Sequence[TrueAnnotation]) -> dict[str, list[TrueAnnotation]]:
    found: dict[str, list[TrueAnnotation]] = {}
    for annotation in annotations:
        found.setdefault(annotation.image, []).append(annotation)
    return found


def _last_of_each_id(annotations: Sequence[TrueAnnotation]) -> list[TrueAnnotation]:
    """Of annotations with one id the published evaluator knows the last, at the place of the first."""
    ids = usable_ids(annotations)
    return list(dict(zip(ids, annotations, strict=True)).values())


def pair_evidence(pairs: Mapping[str, Mapping[str, ImagePairs]], truth: GcgTruth, protocol: str) -> dict[str, Any]:
    evidence = {}
    for figure, measure in PROTOCOLS[protocol].items():
        rows = [measure(found) for found in pairs[protocol].values()]
        values, n = (list(column) for column in zip(*rows, strict=True))
        evidence[figure] = {"kind": "mean", "values": values, "n": n}
    return evidence


def detections(truth: GcgTruth, answers: Mapping[str, GcgAnswer], protocol: str) -> Detections:
    """AP of one category. `glamm` takes true masks of category 1 only, as they are numbered, and all scores as 1."""
    numbers = {key: i for i, key in enumerate(in_order(truth.ids), start=1)}
    strict = protocol == "strict"
    ids = range(1, len(truth.masks) + 1) if strict else usable_ids(truth.masks)
    true = [
        TrueMask(numbers[mask.image], 1, number, mask.rle, mask.area, mask.is_crowd)
        for number, mask in zip(ids, truth.masks, strict=True)
        if strict or mask.category == "1"
    ]
    detected = [
        Detection(numbers[key], 1, mask, rle.area(mask), score if strict else 1.0)
        for key in truth.images
        if key in answers
        for mask, score in zip(answers[key].masks, answers[key].scores, strict=True)
    ]
    return Detections(len(numbers), [1], true, detected)


def of_captioned(evidence: dict[str, Any], truth: GcgTruth) -> dict[str, Any]:
    """Evidence whose images are numbered as the caption file has them; images of the mask file alone come behind, and
    count in no resample."""
    order = in_order(truth.ids)
    places = {key: i for i, key in enumerate(truth.images)}
    numbers = [places.get(key, len(places)) for key in order]
    kept = [(numbers[image], *rest) for image, *rest in evidence["to_find"] if numbers[image] < len(places)]
    return evidence | {"image": [numbers[image] for image in evidence["image"]], "to_find": kept}


def captions(truth: GcgTruth, answers: Mapping[str, GcgAnswer]) -> list[Caption | None]:
    """None for images whose ground truth has no caption."""
    return [
        Caption(answers.get(key, GcgAnswer()).caption, truth.captions[key]) if key in truth.captions else None
        for key in truth.images
    ]
