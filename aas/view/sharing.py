"""Phrases that share one mask are shown as one thing: one colour, one number, one row of the legend."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aas.records import GroundedPhrase

SAME_FROM_IOU = 0.95
JOINT = " · "


@dataclass(frozen=True)
class Thing:
    """One mask and the phrases (indices, in their order) that have it; its colour in the palette, its number less 1."""

    phrases: tuple[int, ...]
    colour: int

    def words(self, phrases: Sequence[GroundedPhrase]) -> str:
        """What its phrases say, each wording once."""
        return JOINT.join(dict.fromkeys(phrases[i].text for i in self.phrases))

    def points(self, phrases: Sequence[GroundedPhrase]) -> list[tuple[tuple[int, int], int]]:
        """All points of its phrases with their labels, each place once, the first phrase's peak first."""
        found: dict[tuple[int, int], int] = {}
        for index in self.phrases:
            for point_xy, label in phrases[index].prompt_points:
                found.setdefault(point_xy, label)
        return list(found.items())


def things(phrases: Sequence[GroundedPhrase], same_from_iou: float = SAME_FROM_IOU) -> list[Thing]:
    """Each phrase in exactly one thing; things in the order of their first phrases, coloured 0, 1, 2, …

    A phrase joins the first thing whose first mask has an IoU of `same_from_iou` or more with its own. Empty masks
    share nothing.
    """
    areas = [int(np.count_nonzero(phrase.mask)) for phrase in phrases]
    members: list[list[int]] = []
    for i, phrase in enumerate(phrases):
        for group in members:
            first = group[0]
            if _iou(phrases[first].mask, areas[first], phrase.mask, areas[i], same_from_iou) >= same_from_iou:
                group.append(i)
                break
        else:
            members.append([i])
    return [Thing(tuple(group), colour) for colour, group in enumerate(members)]


def thing_of_phrases(shown: Sequence[Thing]) -> dict[int, Thing]:
    """Which thing each phrase belongs to."""
    return {index: thing for thing in shown for index in thing.phrases}


def _iou(one: np.ndarray, one_area: int, other: np.ndarray, other_area: int, enough: float) -> float:
    """0 where areas alone say that it is below `enough`: most pairs are never compared pixel by pixel."""
    small, large = sorted((one_area, other_area))
    if not small or small < enough * large:
        return 0.0
    both = int(np.count_nonzero(one & other))
    return both / (small + large - both)
