"""The second half of the method for one image: noun phrases, a prompt for each, a mask for each prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from spacy.language import Language

from aas.mask_choice import MaskChoice, choose
from aas.phrases.parser import noun_phrases
from aas.prompts import point_prompt
from aas.records import Answer, AttentionMaps, Phrase, View
from aas.reduce import Preset, phrase_map, without_token_mean
from aas.segmenters.base import ImageEmbedding, Segmenter

MAX_MASK_PIXELS = 100_000_000  # of all candidate masks that exist at once


@dataclass(frozen=True)
class Pointed:
    """A phrase, its map float32 [h, w] over `view`, and its prompt in pixels."""

    phrase: Phrase
    map: np.ndarray
    view: View
    point_xy: tuple[int, int]


@dataclass(frozen=True)
class PhraseMasks:
    """`masks` bool [1 or 3, H, W] of one phrase and the segmenter's `scores` of them: the chosen one, or all."""

    masks: np.ndarray
    scores: np.ndarray


def point_phrases(
    pipeline: Language, answer: Answer, attention: AttentionMaps, preset: Preset, image_hw: tuple[int, int]
) -> list[Pointed]:
    """The answer's noun phrases in reading order, each with its prompt."""
    residual = without_token_mean(attention.maps)
    pointed = []
    for phrase in noun_phrases(pipeline, answer):
        grid_map = phrase_map(residual, phrase.token_indices, preset.merge)
        pointed.append(Pointed(phrase, grid_map, attention.view, point_prompt(grid_map, attention.view, image_hw)))
    return pointed


def phrase_masks(
    segmenter: Segmenter, embedding: ImageEmbedding, pointed: Sequence[Pointed], choice: MaskChoice | None
) -> list[PhraseMasks]:
    """One mask for each phrase, or with `choice` None all three."""
    points_xy = np.asarray([one.point_xy for one in pointed], np.float32)[:, None]
    # One decoder batch for a photograph of usual size; a huge one goes in parts, since its masks are huge too.
    part = max(1, MAX_MASK_PIXELS // (3 * embedding.size_hw[0] * embedding.size_hw[1]))
    found = []
    for start in range(0, len(pointed), part):
        candidates = segmenter.masks(embedding, points_xy[start : start + part])
        if choice is None:
            found += [PhraseMasks(*both) for both in zip(candidates.masks, candidates.scores, strict=True)]
            continue
        # To make masks large is dear: all of them only for the choice that looks at them.
        seen = candidates.masks if choice == "best-attention" else candidates.logits
        rows = zip(seen, candidates.scores, pointed[start : start + part], strict=True)
        which = np.array([choose(choice, masks, scores, one.map, one.view) for masks, scores, one in rows])
        for mask, scores, i in zip(candidates.chosen(which), candidates.scores, which, strict=True):
            found.append(PhraseMasks(mask[None], scores[i : i + 1]))
    return found


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO run lengths of a bool mask [H, W], the counts as text."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def packed_masks(masks: np.ndarray) -> np.ndarray:
    """Bool [n, H, W] as bits, uint8 [n, ceil(H * W / 8)]: an eighth of the bytes between two processes."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def run_lengths_of(packed: np.ndarray, size_hw: tuple[int, int]) -> list[dict[str, Any]]:
    """COCO run lengths of packed masks."""
    height, width = size_hw
    bits = np.unpackbits(packed, axis=1, count=height * width)
    return [run_lengths(mask) for mask in bits.reshape(-1, height, width)]
