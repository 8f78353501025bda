"""`aas calibrate`: which heads of a model look at what is spoken of, found on mosaics of captioned photographs.

Four photographs lie side by side in one image, and the caption of one of them is given as the answer. A head that looks
at what is spoken of attends to that one's panel. Nobody says where anything is (after arXiv 2606.14703, whose prompts
ask about a panel by its place). Where no head does so clearly, as behind encoders that were frozen, those are taken
whose attention to single photographs is most often compact (`calibrate_frequency.py`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from tqdm import tqdm

from aas.capture import Selection
from aas.datasets.answers import GivenAnswer, read_answers
from aas.geometry import cell_coverage
from aas.images import read_image
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.sources import origin_of
from aas.presets import DEFAULT_QUESTION
from aas.records import AttentionMaps
from aas.stages.calibrate_frequency import LEAST_HEADS, N_HEADS, frequencies, looking, sums_and_entropies
from aas.stages.calibrate_options import Calibrate
from aas.store.atomic import check_target, write_text

PANEL = 224  # pixels of a side
PANELS = [(x, y, x + PANEL, y + PANEL) for y in (0, PANEL) for x in (0, PANEL)]
LEAST_AGREEMENT = 0.9  # of two halves of the photographs
LEAST_GAZE = 0.01  # of the best head: so much more of its attention goes to the photograph that is spoken of
ALL_HEADS = AskOptions(selection=Selection(keep="heads"))


@dataclass(frozen=True)
class Ranking:
    """A score for each head, float64 [layers, heads]: how it was made of what, and how far two halves agree on it."""

    how: str
    scores: np.ndarray
    made_of: int
    spearman: float

    compared: int

    @classmethod
    def of(cls, how: str, n: int, scores: np.ndarray, halves: Sequence[np.ndarray], among: np.ndarray) -> Self:
        """Of n items; `halves`: the scores by every other one; `among` bool [layers, heads]: the heads to compare."""
        return cls(how, scores, n, spearman(*(half[among] for half in halves)), int(among.sum()))

    def __str__(self) -> str:
        if np.isnan(self.spearman):
            return f"Of {self.made_of} {self.how} {self.compared} heads look at the image, too few to be compared"
        said = f"Two halves of {self.made_of} {self.how} agree by {self.spearman:.3f}"
        return f"{said} (Spearman, over {self.compared} heads)"


def calibrate(options: Calibrate) -> int:
    """Write the calibration; returns 1, and writes none, where two halves of the photographs do not agree on the heads.

    Raises ValueError or OSError where the options cannot work.
    """
    check_target(options.out)
    mosaics = _mosaics(options)
    lmm = load_lmm(options.model, options.device, **options.loading())
    ranking = _by_gaze(lmm, options.images, mosaics)
    best = float(ranking.scores.max())
    print(f"{ranking}; the best looks by {best:.3f} more at the photograph that is spoken of.")
    n_heads = options.heads or max(3, round(0.04 * ranking.scores.size))
    if not (ranking.spearman >= LEAST_AGREEMENT and best >= LEAST_GAZE):
        print("That is weak: taking those whose attention is most often compact (LocalizationHeads' frequency).")
        ranking, n_heads = _by_frequency(lmm, options.images, mosaics), options.heads or N_HEADS
        print(f"{ranking}.")
    if not ranking.spearman >= LEAST_AGREEMENT:
        print(
            f"Not {LEAST_AGREEMENT}: this model has no heads that look at what is spoken of, as far as these show. "
            "Halves of more photographs agree better."
        )
        return 1
    kept = chosen(ranking.scores, n_heads)
    write_text(options.out, json.dumps(_content(lmm, ranking, kept, options), indent=1) + "\n")
    print(f"{options.out}: {', '.join(f'layer {layer} head {head}' for layer, head, _ in kept)}")
    return 0


def _by_gaze(lmm: LMM, folder: Path, mosaics: Sequence[Sequence[GivenAnswer]]) -> Ranking:
    scores = np.array([_scores(lmm, folder, mosaic) for mosaic in tqdm(mosaics, unit="mosaic")])
    mean, halves = scores.mean(0), [scores[i::2].mean(0) for i in (0, 1)]
    return Ranking.of("mosaics", len(scores), mean, halves, np.ones(mean.shape, bool))


def _by_frequency(lmm: LMM, folder: Path, mosaics: Sequence[Sequence[GivenAnswer]]) -> Ranking:
    """Of each photograph alone, the row that has read its whole caption."""
    found = []
    for row in tqdm([row for mosaic in mosaics for row in mosaic], unit="photograph"):
        attention = _attention(lmm, read_image(folder / row.image), row)
        found.append(sums_and_entropies(attention.maps[:, :, -1]))
    sums, entropies = (np.array(some) for some in zip(*found, strict=True))
    looks = looking(sums)
    halves = [frequencies(entropies[i::2], looks) for i in (0, 1)]
    ranking = Ranking.of("photographs", len(sums), frequencies(entropies, looks), halves, looks)
    return ranking if ranking.compared >= LEAST_HEADS else replace(ranking, spearman=float("nan"))


def _mosaics(options: Calibrate) -> list[list[GivenAnswer]]:
    """Captions of four photographs each, in an order of chance, an even number of mosaics."""
    by_image = {row.image: row for row in read_answers(options.answers) if row.text}
    there = [row for image, row in sorted(by_image.items()) if (options.images / image).is_file()]
    order = np.random.default_rng(options.seed).permutation(len(there))[: options.limit]
    n = len(PANELS)
    n_mosaics = len(order) // (2 * n) * 2
    if not n_mosaics:
        raise ValueError(f"--images {options.images}: at least {2 * n} photographs of --answers must be there.")
    return [[there[i] for i in order[start * n : (start + 1) * n]] for start in range(n_mosaics)]


def _scores(lmm: LMM, folder: Path, mosaic: Sequence[GivenAnswer]) -> np.ndarray:
    """Float64 [layers, heads]: the gaze of each head, the mean over the four captions."""
    image = mosaic_of([read_image(folder / row.image) for row in mosaic])
    found = []
    for place, row in enumerate(mosaic):
        found.append(gaze(_attention(lmm, image, row), place))
    return np.mean(found, axis=0)


def _attention(lmm: LMM, image: np.ndarray, row: GivenAnswer) -> AttentionMaps:
    """Of all heads, float32 [layers, heads, tokens, h, w]."""
    ((_, attention),) = lmm.run([lmm.prepare(image, DEFAULT_QUESTION, row.text)], ALL_HEADS)
    if len(attention.maps) != lmm.text_config.num_hidden_layers:
        raise ValueError(f"{lmm.name}: some of its layers have no attention to the image, so it is not calibrated.")
    return attention


def mosaic_of(photographs: Sequence[np.ndarray]) -> np.ndarray:
    """Four photographs uint8 [H, W, 3], each stretched to its panel."""
    image = Image.new("RGB", (2 * PANEL, 2 * PANEL))
    for photograph, (x, y, _, _) in zip(photographs, PANELS, strict=True):
        image.paste(Image.fromarray(photograph).resize((PANEL, PANEL), Image.Resampling.BICUBIC), (x, y))
    return np.asarray(image)


def gaze(attention: AttentionMaps, place: int) -> np.ndarray:
    """Float64 [layers, heads]: the attention, mean over the answer's tokens, that goes to the panel of that number,
    less the mean of the others; a head that ignores the image, or looks always at one place, has 0 on the whole."""
    in_panels = np.array([cell_coverage(attention.view, panel) for panel in PANELS])
    mass = np.einsum("lhtyx,pyx->plh", attention.maps, in_panels, dtype=np.float64) / attention.maps.shape[2]
    return mass[place] - np.delete(mass, place, axis=0).mean(0)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of the ranks of two float [n]; equal values share the mean of their ranks. NaN where one has
    equal values alone."""
    first, second = _ranks(one), _ranks(other)
    if len(np.unique(first)) < 2 or len(np.unique(second)) < 2:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[places]


def chosen(scores: np.ndarray, n_heads: int) -> list[tuple[int, int, float]]:
    """(layer, head, score) of the best, from high to low; never those that look there no more than elsewhere."""
    best = np.argsort(-scores, axis=None, kind="stable")[:n_heads]
    places = (divmod(int(i), scores.shape[1]) for i in best if scores.flat[i] > 0)
    return [(layer, head, float(scores[layer, head])) for layer, head in places]


def _content(lmm: LMM, ranking: Ranking, kept: Sequence[tuple[int, int, float]], options: Calibrate) -> dict[str, Any]:
    made = {"how": ranking.how, ranking.how: ranking.made_of, "seed": options.seed}
    return {
        "model": lmm.name,
        "revision": origin_of(lmm).revision,
        "heads": [[layer, head, round(score, 6)] for layer, head, score in kept],
        "scores": ranking.scores.round(6).tolist(),
        "made": made | {"spearman": round(ranking.spearman, 4)},
    }
