"""`aas calibrate`: which heads of a model look at what is spoken of, found on mosaics of captioned photographs.

Four photographs lie side by side in one image, and the caption of one of them is given as the answer. A head that looks
at what is spoken of attends to that one's panel. Nobody says where anything is (after arXiv 2606.14703, whose prompts
ask about a panel by its place).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from aas.presets import DEFAULT_QUESTION
from aas.records import AttentionMaps
from aas.stages.calibrate_options import Calibrate
from aas.store.atomic import check_target, write_text

PANEL = 224  # pixels of a side
PANELS = [(x, y, x + PANEL, y + PANEL) for y in (0, PANEL) for x in (0, PANEL)]
LEAST_AGREEMENT = 0.9  # of two halves of the photographs
ALL_HEADS = AskOptions(selection=Selection(keep="heads"))


def calibrate(options: Calibrate) -> int:
    """Write the calibration; returns 1, and writes none, where two halves of the photographs do not agree on the heads.

    Raises ValueError or OSError where the options cannot work.
    """
    check_target(options.out)
    mosaics = _mosaics(options)
    lmm = load_lmm(options.model, options.device, **options.loading())
    scores = np.array([_scores(lmm, options.images, mosaic) for mosaic in tqdm(mosaics, unit="mosaic")])
    agreement = spearman(*(half.mean(0).ravel() for half in (scores[0::2], scores[1::2])))
    mean = scores.mean(0)
    print(f"Two halves of {len(mosaics)} mosaics agree by {agreement:.3f} (Spearman, over {mean.size} heads).")
    if not agreement >= LEAST_AGREEMENT:
        print(f"Below {LEAST_AGREEMENT}: this model has no heads that look at what is spoken of, as far as these show.")
        return 1
    kept = chosen(mean, options.heads or max(3, round(0.04 * mean.size)))
    made = {"how": "mosaics", "mosaics": len(mosaics), "seed": options.seed, "spearman": round(agreement, 4)}
    write_text(options.out, json.dumps(_content(lmm, mean, kept, made), indent=1) + "\n")
    print(f"{options.out}: {', '.join(f'layer {layer} head {head}' for layer, head, _ in kept)}")
    return 0


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
        ((_, attention),) = lmm.run([lmm.prepare(image, DEFAULT_QUESTION, row.text)], ALL_HEADS)
        if len(attention.maps) != lmm.text_config.num_hidden_layers:
            raise ValueError(f"{lmm.name}: some of its layers have no attention to the image, so it is not calibrated.")
        found.append(gaze(attention, place))
    return np.mean(found, axis=0)


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
    """The correlation of the ranks of two float [n]."""
    first, second = (values.argsort(kind="stable").argsort(kind="stable").astype(float) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def chosen(scores: np.ndarray, n_heads: int) -> list[tuple[int, int, float]]:
    """(layer, head, score) of the best, from high to low; never those that look there no more than elsewhere."""
    best = np.argsort(-scores, axis=None, kind="stable")[:n_heads]
    places = (divmod(int(i), scores.shape[1]) for i in best if scores.flat[i] > 0)
    return [(layer, head, float(scores[layer, head])) for layer, head in places]


def _content(
    lmm: LMM, scores: np.ndarray, kept: Sequence[tuple[int, int, float]], made: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model": lmm.name,
        "revision": getattr(lmm.model.config, "_commit_hash", None),
        "heads": [[layer, head, round(score, 6)] for layer, head, score in kept],
        "scores": scores.round(6).tolist(),
        "made": made,
    }
