"""The second half of the method for one image: noun phrases, a prompt for each, a mask for each prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from spacy.language import Language

from aas import rle
from aas.mask_choice import MaskChoice, choose
from aas.phrases.parser import Words, noun_phrases
from aas.phrases.visible import Kind
from aas.prompts import mask_prompt, point_prompt, points_prompt, stacked
from aas.records import Answer, AttentionMaps, Phrase, Prompt, View
from aas.reduce import Merge, phrase_map, without_token_mean
from aas.segmenters.base import ImageEmbedding, MaskCandidates, Segmenter

PromptKind = Literal["point", "mask"]
MAX_MASK_PIXELS = 100_000_000  # of all candidate masks that exist at once


@dataclass(frozen=True)
class PointingOptions:
    """From an answer's maps to prompts.

    `merge`: how the maps of a phrase's tokens become one; `words`: whether those are its root word's or all of the
    chunk's; `drop`: kinds of phrases to leave out; `prompt`: points, `n_positive` at the peaks and `n_negative` at the
    troughs of the map, or the map itself as a mask of `mask_side` cells.
    """

    merge: Merge = "mean"
    words: Words = "root"
    drop: tuple[Kind, ...] = ()
    prompt: PromptKind = "point"
    n_positive: int = 1
    n_negative: int = 0
    mask_side: int = 256


@dataclass(frozen=True)
class Pointed:
    """A phrase, its map float32 [h, w] over `view`, the pixel where that is largest, and its prompt."""

    phrase: Phrase
    map: np.ndarray
    view: View
    point_xy: tuple[int, int]
    prompt: Prompt


@dataclass(frozen=True)
class PhraseMasks:
    """`masks` bool [1 or 3, H, W] of one phrase and the segmenter's `scores` of them: the chosen one, or all."""

    masks: np.ndarray
    scores: np.ndarray


def point_phrases(
    pipeline: Language, answer: Answer, attention: AttentionMaps, options: PointingOptions, image_hw: tuple[int, int]
) -> list[Pointed]:
    """The answer's noun phrases in reading order, each with its prompt."""
    phrases = noun_phrases(pipeline, answer, words=options.words, drop=options.drop)
    return prompted(phrases, attention, options, image_hw)


def prompted(
    phrases: Sequence[Phrase], attention: AttentionMaps, options: PointingOptions, image_hw: tuple[int, int]
) -> list[Pointed]:
    """Each phrase with its map and its prompt."""
    residual = without_token_mean(attention.maps)
    pointed = []
    for phrase in phrases:
        # Of a phrase that is the whole answer nothing specific would remain, as of a single token.
        maps = attention.maps if len(phrase.token_indices) == len(residual) else residual
        grid_map = phrase_map(maps, phrase.token_indices, options.merge)
        point_xy = point_prompt(grid_map, attention.view, image_hw)
        if options.prompt == "mask":
            prompt = mask_prompt(grid_map, attention.view, image_hw, options.mask_side)
        elif options.n_positive == 1 and not options.n_negative:
            prompt = Prompt(np.array([point_xy], np.float32), np.ones(1, np.int64))
        else:
            prompt = points_prompt(grid_map, attention.view, image_hw, options.n_positive, options.n_negative)
        pointed.append(Pointed(phrase, grid_map, attention.view, point_xy, prompt))
    return pointed


def phrase_masks(
    segmenter: Segmenter, embedding: ImageEmbedding, pointed: Sequence[Pointed], choice: MaskChoice | None
) -> list[PhraseMasks]:
    """One mask for each phrase, or with `choice` None all three."""
    # One decoder batch for a photograph of usual size; a huge one goes in parts, since its masks are huge too.
    part = max(1, MAX_MASK_PIXELS // (3 * embedding.size_hw[0] * embedding.size_hw[1]))
    found: dict[int, PhraseMasks] = {}
    for indices, prompts in stacked([one.prompt for one in pointed]):
        for start in range(0, len(indices), part):
            here = indices[start : start + part]
            candidates = segmenter.masks(embedding, **{k: v[start : start + part] for k, v in prompts.items()})
            found |= dict(zip(here, _chosen(candidates, [pointed[i] for i in here], choice), strict=True))
    return [found[i] for i in range(len(pointed))]


def _chosen(candidates: MaskCandidates, pointed: Sequence[Pointed], choice: MaskChoice | None) -> Iterator[PhraseMasks]:
    if choice is None:
        yield from (PhraseMasks(*both) for both in zip(candidates.masks, candidates.scores, strict=True))
        return
    # To make masks large is dear: all of them only for the choice that looks at them.
    seen = candidates.masks if choice == "best-attention" else candidates.logits
    rows = zip(seen, candidates.scores, pointed, strict=True)
    which = np.array([choose(choice, masks, scores, one.map, one.view) for masks, scores, one in rows])
    for mask, scores, i in zip(candidates.chosen(which), candidates.scores, which, strict=True):
        yield PhraseMasks(mask[None], scores[i : i + 1])


def packed_masks(masks: np.ndarray) -> np.ndarray:
    """Bool [n, H, W] as bits, uint8 [n, ceil(H * W / 8)]: an eighth of the bytes between two processes."""
    return np.packbits(masks.reshape(len(masks), -1), axis=1)


def run_lengths_of(packed: np.ndarray, size_hw: tuple[int, int]) -> list[rle.Rle]:
    """COCO run lengths of packed masks."""
    height, width = size_hw
    bits = np.unpackbits(packed, axis=1, count=height * width)
    return [rle.of_mask(mask) for mask in bits.reshape(-1, height, width)]
