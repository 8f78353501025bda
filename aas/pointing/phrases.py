"""Noun phrases of an answer, each with its map and the prompt that it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aas.choices import Kind, Merge, PromptKind, ReadOut, Words, check
from aas.maps.merge import pointing_maps
from aas.phrases.apart import chosen_phrases
from aas.phrases.reasoning import tokens_of_answer
from aas.pointing.prompts import mask_prompt, point_prompt, points_prompt
from aas.records import Answer, AttentionMaps, Phrase, Prompt, View

if TYPE_CHECKING:
    from spacy.language import Language


@dataclass(frozen=True)
class PointingOptions:
    """From an answer's maps to prompts.

    `merge`: how the maps of a phrase's tokens become one; `words`: whether those are its root word's or all of the
    chunk's; `drop`: kinds of phrases to leave out; `reasoning`: whether what a model says between <think> and </think>
    counts as its answer; `prompt`: points, `n_positive` at the peaks and `n_negative` at the
    troughs of the map, or the map itself as a mask of `mask_side` cells; `read_out`: where the first point lies.
    """

    merge: Merge = "mean"
    words: Words = "root"
    drop: tuple[Kind, ...] = ()
    prompt: PromptKind = "point"
    n_positive: int = 1
    n_negative: int = 0
    mask_side: int = 256
    reasoning: bool = False
    read_out: ReadOut = "argmax"

    def __post_init__(self) -> None:
        choices = (("merge", Merge), ("words", Words), ("prompt", PromptKind), ("read_out", ReadOut))
        for name, words in choices:
            check(name, getattr(self, name), words)
        for kind in self.drop:
            check("kind to drop", kind, Kind)
        if self.n_positive < 1 or self.n_negative < 0:
            raise ValueError("At least one point lies on the thing, and no fewer than 0 lie elsewhere.")


@dataclass(frozen=True)
class Pointed:
    """A phrase, its map float32 [h, w] over `view`, the pixel that is read out of it, and its prompt."""

    phrase: Phrase
    map: np.ndarray
    view: View
    point_xy: tuple[int, int]
    prompt: Prompt


def point_phrases(
    pipeline: "Language", answer: Answer, attention: AttentionMaps, options: PointingOptions, image_hw: tuple[int, int]
) -> tuple[list[Pointed], tuple[str, ...]]:
    """The answer's noun phrases in reading order, each with its prompt; and the words of those that were left out.

    `image_hw`: of the upright photograph, in pixels.
    """
    phrases, left_out = phrases_for(pipeline, answer, options)
    return prompted(phrases, answer, attention, options, image_hw), left_out


def phrases_for(
    pipeline: "Language", answer: Answer, options: PointingOptions
) -> tuple[tuple[Phrase, ...], tuple[str, ...]]:
    """The answer's noun phrases that are to be pointed at, in reading order; and the words of those left out."""
    return chosen_phrases(pipeline, answer, words=options.words, drop=options.drop, reasoning=options.reasoning)


def prompted(
    phrases: Sequence[Phrase],
    answer: Answer,
    attention: AttentionMaps,
    options: PointingOptions,
    image_hw: tuple[int, int],
) -> list[Pointed]:
    """Each phrase with its map and its prompt.

    `attention`: maps float32 [tokens, h, w] of the whole answer, whose mean over its tokens (without those of a
    reasoning that does not count as the answer) is taken away before a phrase's tokens are merged, where their source
    wants it; `image_hw`: of the
    upright photograph, in pixels.
    """
    counted = None if options.reasoning else tokens_of_answer(answer)
    _, maps = pointing_maps(attention, [phrase.token_indices for phrase in phrases], options.merge, counted)
    pointed = []
    for phrase, grid_map in zip(phrases, maps, strict=True):
        point_xy = point_prompt(grid_map, attention.view, image_hw, options.read_out)
        prompt = _prompt(grid_map, attention.view, point_xy, options, image_hw)
        pointed.append(Pointed(phrase, grid_map, attention.view, point_xy, prompt))
    return pointed


def _prompt(
    grid_map: np.ndarray, view: View, point_xy: tuple[int, int], options: PointingOptions, image_hw: tuple[int, int]
) -> Prompt:
    if options.prompt == "mask":
        return mask_prompt(grid_map, view, image_hw, options.mask_side)
    if options.n_positive == 1 and not options.n_negative:  # the point that is known already
        return Prompt(np.array([point_xy], np.float32), np.ones(1, np.int64))
    prompt = points_prompt(grid_map, view, image_hw, options.n_positive, options.n_negative)
    assert prompt.points_xy is not None
    prompt.points_xy[0] = point_xy  # of another read-out than the largest pixel
    return prompt
