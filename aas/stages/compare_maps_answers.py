"""What `aas compare maps` sees of one answer: the phrases that name something, and where each source points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from aas import rle
from aas.datasets.answers import GivenAnswer
from aas.datasets.coco import TrueAnnotation
from aas.ground import Grounder
from aas.lmms.prepared import DEFAULT_OPTIONS
from aas.metrics.deletion import greyed, largest_cells, random_cells
from aas.metrics.maps import best_iou, map_figures
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import chosen_phrases
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed, prompted
from aas.records import Answer, AttentionMaps, Phrase
from aas.stages.compare_maps_options import CompareMaps

RANDOM_DRAWS = 3  # of cells that the deletion test holds a map's against
OF_MASKS = ("Otsu IoU", "mask IoU")  # figures that a box says nothing of


@dataclass(frozen=True)
class Thing:
    """A category in a photograph: its masks bool [H, W], all of it first, then each instance; `is_box`: where some of
    them is but a box."""

    name: str
    masks: list[np.ndarray]
    is_box: bool


@dataclass(frozen=True)
class Looked:
    """An answer about a photograph uint8 [H, W, 3], its phrases that name something in it, and what each names.

    `attention`: the maps of all sources; `pointed`: source -> where it points, phrase by phrase; `figures`: of each
    phrase, source -> figure -> value.
    """

    row: GivenAnswer
    image: np.ndarray
    answer: Answer
    attention: AttentionMaps
    things: list[Thing]
    pointed: dict[str, list[Pointed]]
    figures: list[dict[str, dict[str, float]]]


def things_of(masks: Sequence[TrueAnnotation], categories: Mapping[str, str]) -> list[Thing]:
    """What is in a photograph."""
    by_category: dict[str, list[TrueAnnotation]] = {}
    for mask in masks:
        by_category.setdefault(mask.category, []).append(mask)
    found = []
    for category, some in by_category.items():
        decoded = [(rle.decoded(mask.rle), mask.is_crowd) for mask in some]
        union = np.logical_or.reduce([mask for mask, _ in decoded])
        if union.any():
            parts = [mask for mask, is_crowd in decoded if not is_crowd]
            found.append(Thing(categories[category], [union, *parts], any(mask.is_box for mask in some)))
    return found


@dataclass(frozen=True)
class Looking:
    """Looks at answers, one after the other."""

    options: CompareMaps
    grounder: Grounder
    matcher: CategoryMatcher

    def at(self, row: GivenAnswer, image: np.ndarray, things: Sequence[Thing]) -> Looked | None:
        """None where no phrase of the answer names anything in the photograph."""
        lmm, options = self.grounder.lmm, self.grounder.ask_options
        asked = (row.question or self.options.question, row.text or None, row.token_ids)
        ((answer, attention),) = lmm.run([lmm.prepare(image, *asked, options)], options)
        named = list(self._named(answer, things))
        if not named:
            return None
        phrases, of_phrases = [phrase for phrase, _ in named], [thing for _, thing in named]
        pointing, image_hw = self.grounder.pointing, (image.shape[0], image.shape[1])
        pointed = {
            source: prompted(phrases, answer, attention.of(source), pointing, image_hw) for source in attention.sources
        }
        looked = Looked(row, image, answer, attention, of_phrases, pointed, [{} for _ in named])
        self._measure(looked)
        return looked

    def _named(self, answer: Answer, things: Sequence[Thing]) -> Iterator[tuple[Phrase, Thing]]:
        """The phrases that name something in the photograph, by the nearest category by word vectors, an oracle."""
        present = [self.matcher.names.index(one.name) for one in things]
        phrases, _ = chosen_phrases(self.grounder.pipeline, answer, words=self.grounder.pointing.words)
        for phrase in phrases:
            best = self.matcher.best(phrase.root_in(answer.text), present)
            if best is not None and best[1] >= self.options.category_thresh:
                yield phrase, things[present.index(best[0])]

    def _measure(self, looked: Looked) -> None:
        masks = self._masks(looked)
        drops = {} if self.options.no_deletion else self._drops(looked)
        for source, pointed in looked.pointed.items():
            for i, (one, thing) in enumerate(zip(pointed, looked.things, strict=True)):
                figures = map_figures(one.map, one.view, one.point_xy, thing.masks)
                if source in masks:
                    figures["mask IoU"] = best_iou(masks[source][i], thing.masks)
                if source in drops:
                    figures["deletion"] = drops[source][i]
                if thing.is_box:
                    figures = {name: value for name, value in figures.items() if name not in OF_MASKS}
                looked.figures[i][source] = figures

    def _masks(self, looked: Looked) -> dict[str, list[np.ndarray]]:
        """Source -> the segmenter's mask of each phrase; none where there is no mask to hold them against."""
        if self.options.no_masks or all(thing.is_box for thing in looked.things):
            return {}
        name, grounder = looked.row.image, self.grounder
        embedding = grounder.encoded.of({name: looked.image})[name]
        return {
            source: [one.masks[0] for one in phrase_masks(grounder.segmenter, embedding, pointed, grounder.mask_choice)]
            for source, pointed in looked.pointed.items()
        }

    def _drops(self, looked: Looked) -> dict[str, list[float]]:
        """Source -> of each phrase, how much more log-probability its tokens lose, on the mean, when the largest cells
        of its map are greyed than when as many are that were drawn: the same for all sources."""
        image_hw, view = (looked.image.shape[0], looked.image.shape[1]), looked.attention.view
        generator = np.random.default_rng([self.options.seed, crc32(looked.row.key.encode())])
        drawn = [random_cells(view, image_hw, generator) for _ in range(RANDOM_DRAWS)]
        marked = {
            source: [largest_cells(one.map, view, image_hw) for one in pointed]
            for source, pointed in looked.pointed.items()
        }
        left = self._log_probabilities(looked, [*drawn, *(cells for some in marked.values() for cells in some)])
        at_random = np.mean([left[cells.tobytes()] for cells in drawn], axis=0)
        return {
            source: [
                float((at_random - left[cells.tobytes()])[list(one.phrase.token_indices)].mean())
                for cells, one in zip(some, looked.pointed[source], strict=True)
            ]
            for source, some in marked.items()
        }

    def _log_probabilities(self, looked: Looked, deleted: Sequence[np.ndarray]) -> dict[bytes, np.ndarray]:
        """Of each set of cells that is greyed, float [tokens]."""
        lmm, n = self.grounder.lmm, self.grounder.images_at_once()
        sets = list({cells.tobytes(): cells for cells in deleted}.values())  # sources may mark the same
        said = (looked.answer.question, None, looked.answer.token_ids)
        found: dict[bytes, np.ndarray] = {}
        for here in (sets[i : i + n] for i in range(0, len(sets), n)):
            ready = [lmm.prepare(greyed(looked.image, cells, looked.attention.view), *said) for cells in here]
            for cells, (answer, _) in zip(here, lmm.run(ready, DEFAULT_OPTIONS), strict=True):
                found[cells.tobytes()] = np.array(answer.token_log_probs)
        return found
