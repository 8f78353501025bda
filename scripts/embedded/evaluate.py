"""Figures of the embedded models on photographs that none of them was trained or chosen on.

    python scripts/embedded/evaluate.py --data ../shared/data [--split figures|choose] [--json FILE]

For each noun phrase of the answer: the category nearest to its root word by word vectors, of all 80; the phrase counts
where that one is present in the photograph's ground truth (below --category-thresh it is left out). A point is
right when it lies in the union of that category's masks; a mask's IoU is its best with that union or with a single
instance. All methods share answers, phrases and segmenter; they differ in the point alone. Boundary F: see boundary.py.
Intervals: 95 %, bootstrap over photographs.
"""

import argparse
import json
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from answer_figures import answer_figures, interval
from boundary import boundary_f
from naming import THRESHOLD, named_in_sight
from pycocotools.coco import COCO
from split import default_data_dir, kept_out
from tqdm import tqdm

from aas import Grounder
from aas.geometry import deepest_xy
from aas.images import read_image
from aas.maps import DEFAULT
from aas.maps.mean import without_token_mean
from aas.maps.merge import phrase_map
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import noun_phrases
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed, prompted
from aas.pointing.prompts import point_prompt, points_prompt
from aas.presets import DEFAULT_QUESTION
from aas.records import Answer, AttentionMaps, Phrase, Prompt, View

N_PEAKS = 3
METHODS = {
    "ground": "what `aas ground` does with these models: the peak of their map source",
    "attention": "attention minus token mean: its peak (the method)",
    "peaks": "… its three highest peaks",
    "raw": "raw attention: its peak",
    "centre": "image centre",
    "random": "random point",
    "ground truth": "ground-truth point (the segmenter's limit)",
}


@dataclass(frozen=True)
class Thing:
    """A category in a photograph: bool masks [H, W] of its instances and their union (crowds are in the union only)."""

    name: str
    instances: list[np.ndarray]
    union: np.ndarray

    def nearest(self, mask: np.ndarray) -> tuple[float, float]:
        """IoU of `mask` with the union or the instance it is nearest to, and its boundary F with that one."""
        candidates = [self.union, *self.instances]
        ious = [(mask & c).sum() / max((mask | c).sum(), 1) for c in candidates]
        best = int(np.argmax(ious))
        return float(ious[best]), boundary_f(mask, candidates[best])


def things_in(coco: COCO, image_id: int) -> list[Thing]:
    things = []
    annotations = coco.imgToAnns[image_id]
    for category_id in sorted({a["category_id"] for a in annotations}):
        masks = [(coco.annToMask(a).astype(bool), a["iscrowd"]) for a in annotations if a["category_id"] == category_id]
        union = np.logical_or.reduce([mask for mask, _ in masks])
        if union.any():
            things.append(Thing(coco.cats[category_id]["name"], [m for m, crowd in masks if not crowd], union))
    return things


@dataclass
class Case:
    """One phrase of one photograph, and what each method made of it."""

    image_id: int
    phrase: str
    category: str
    area: float
    hit: dict[str, bool]
    iou: dict[str, float]
    boundary: dict[str, float]


class Evaluation:
    """Collects `cases`. `segments`: also their masks; without, they have no `iou` and no `boundary`."""

    def __init__(
        self, grounder: Grounder, matcher: CategoryMatcher, threshold: float, seed: int, segments: bool = True
    ):
        self.grounder, self.matcher, self.threshold, self.segments = grounder, matcher, threshold, segments
        sources = dict.fromkeys([*grounder.ask_options.maps, DEFAULT])
        self.options = replace(grounder.ask_options, maps=tuple(sources))
        self.rng = np.random.default_rng(seed)
        self.cases: list[Case] = []

    def category_of(self, answer: Answer, phrase: Phrase, among: Collection[str]) -> str | None:
        """The category that a phrase's root word names, where it is `among` these."""
        return named_in_sight(self.matcher, phrase.root_in(answer.text), among, self.threshold)

    def ask(self, pixels: np.ndarray, answer: str | None = None) -> tuple[Answer, AttentionMaps]:
        """The model's own answer, or a given one, with the maps of what `aas ground` takes and of plain attention."""
        return self.grounder.lmm.ask(pixels, DEFAULT_QUESTION, answer, self.options)

    def add(self, image_id: int, pixels: np.ndarray, answer: Answer, maps: AttentionMaps, things: list[Thing]) -> None:
        """`maps`: as `ask` gives them."""
        by_name = {thing.name: thing for thing in things}
        matched = []
        for phrase in noun_phrases(self.grounder.pipeline, answer):
            name = self.category_of(answer, phrase, by_name)
            if name is not None:
                matched.append((phrase, by_name[name]))
        if not matched:
            return
        attention = maps.of(DEFAULT).maps
        residual, merge = without_token_mean(attention), self.grounder.pointing.merge
        by_default = prompted([one for one, _ in matched], answer, maps, self.grounder.pointing, pixels.shape[:2])
        pointed = []
        for (phrase, thing), ground in zip(matched, by_default, strict=True):
            method, raw = (phrase_map(source, phrase.token_indices, merge) for source in (residual, attention))
            pointed.append(ground)
            for prompt in self.prompts(method, raw, maps.view, pixels.shape[:2], thing).values():
                point_xy = int(prompt[0, 0]), int(prompt[0, 1])
                pointed.append(Pointed(phrase, method, maps.view, point_xy, _positive(prompt)))
        masks = self._masks(pixels, pointed) if self.segments else []
        points = [one.point_xy for one in pointed]
        for i, (phrase, thing) in enumerate(matched):
            mine = slice(i * len(METHODS), (i + 1) * len(METHODS))
            hit = {m: bool(thing.union[y, x]) for m, (x, y) in zip(METHODS, points[mine], strict=True)}
            found = {m: thing.nearest(mask) for m, mask in zip(METHODS, masks[mine], strict=self.segments)}
            iou, boundary = ({m: both[k] for m, both in found.items()} for k in (0, 1))
            self.cases.append(Case(image_id, phrase.text, thing.name, float(thing.union.mean()), hit, iou, boundary))

    def _masks(self, pixels: np.ndarray, pointed: list[Pointed]) -> list[np.ndarray]:
        (embedding,) = self.grounder.segmenter.encode([pixels])
        return [found.masks[0] for found in phrase_masks(self.grounder.segmenter, embedding, pointed, "last")]

    def prompts(
        self, method: np.ndarray, raw: np.ndarray, view: View, image_hw: tuple[int, int], thing: Thing
    ) -> dict[str, np.ndarray]:
        """Positive points [P, 2] of each method but `ground`, the first of them the one that is right or not."""
        height, width = image_hw
        points = {
            "attention": [point_prompt(method, view, image_hw)],
            "peaks": points_prompt(method, view, image_hw, positive=N_PEAKS).points_xy,
            "raw": [point_prompt(raw, view, image_hw)],
            "centre": [(width // 2, height // 2)],
            "random": [(int(self.rng.integers(width)), int(self.rng.integers(height)))],
            "ground truth": [deepest_xy(thing.union)],
        }
        return {name: np.asarray(points[name], np.float32) for name in METHODS if name != "ground"}

    def mean(
        self, value: Callable[[Case], float], keep: Callable[[Case], bool] = lambda case: True
    ) -> dict[str, float]:
        """Mean over phrases with its bootstrap interval over photographs."""
        groups: dict[int, list[float]] = {}
        for case in self.cases:
            if keep(case):
                groups.setdefault(case.image_id, []).append(value(case))
        return interval([sum(values) for values in groups.values()], [len(values) for values in groups.values()])

    def figures(self) -> dict[str, dict[str, dict[str, float]]]:
        def small(case: Case) -> bool:
            return case.area < 0.3

        figures: dict[str, dict[str, dict[str, float]]] = {}
        for method in METHODS:
            hit, iou, boundary = (partial(_value_of, field, method) for field in ("hit", "iou", "boundary"))
            figures[method] = {
                "pointing": self.mean(hit),
                "pointing_small": self.mean(hit, small),
                "iou": self.mean(iou),
                "iou_small": self.mean(iou, small),
                "boundary": self.mean(boundary),
            }
        return figures


def _positive(points_xy: np.ndarray) -> Prompt:
    return Prompt(points_xy, np.ones(len(points_xy), np.int64))


def _value_of(field: str, method: str, case: Case) -> float:
    return getattr(case, field)[method]


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| point | on the right thing | of things < 30 % of the picture | mask IoU | of things < 30 % | boundary F |",
        "|---|---|---|---|---|---|",
    ]
    for method, row in figures.items():
        cells = [
            f"{row[key]['mean']:.3f} [{row[key]['low']:.2f}, {row[key]['high']:.2f}]"
            for key in ("pointing", "pointing_small", "iou", "iou_small", "boundary")
        ]
        lines.append(f"| {METHODS[method]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def photographs(coco: COCO, data_dir: Path, ids: list[int]) -> Iterator[tuple[int, np.ndarray, list[Thing]]]:
    for image_id in ids:
        path = data_dir / "coco/images/val2017" / coco.imgs[image_id]["file_name"]
        yield image_id, read_image(path), things_in(coco, image_id)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--split", choices=["figures", "choose"], default="figures")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--segmenter", default="embedded")
    parser.add_argument("--phrases", default="embedded")
    parser.add_argument("--category-thresh", type=float, default=THRESHOLD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all figures and every phrase to this file")
    args = parser.parse_args()

    coco = COCO(args.data / "coco/annotations/instances_subset_val2017.json")
    captions = COCO(args.data / "coco/annotations/captions_subset_val2017.json")
    ids = kept_out(args.data)[args.split == "figures"]
    grounder = Grounder(args.model, args.segmenter, args.phrases)
    names = [category["name"] for category in coco.dataset["categories"]]
    matcher = CategoryMatcher(grounder.pipeline, names)
    own, given = (Evaluation(grounder, matcher, args.category_thresh, args.seed) for _ in range(2))
    named, answers, seconds = [], {}, 0.0
    for image_id, pixels, things in tqdm(photographs(coco, args.data, ids), total=len(ids), unit="photo"):
        started = time.perf_counter()
        answer, maps = own.ask(pixels)
        seconds += time.perf_counter() - started
        answers[image_id] = answer.text
        own.add(image_id, pixels, answer, maps, things)
        for phrase in noun_phrases(grounder.pipeline, answer):
            category = own.category_of(answer, phrase, names)
            if category:
                named.append(category in {thing.name for thing in things})
        for caption in captions.imgToAnns[image_id]:
            text = " ".join(caption["caption"].split())
            given.add(image_id, pixels, *given.ask(pixels, text), things)
    said = answer_figures(answers, {i: [c["caption"] for c in captions.imgToAnns[i]] for i in ids})
    result: dict[str, Any] = {
        "split": args.split,
        "answers": said | {"texts": answers},
        "photographs": len(ids),
        "category_precision": float(np.mean(named)),
        "seconds_per_answer": seconds / len(ids),
        "own answers": own.figures(),
        "given captions": given.figures(),
    }
    for title, evaluation in (("own answers", own), ("given captions", given)):
        n, n_photos = len(evaluation.cases), len({case.image_id for case in evaluation.cases})
        print(f"\n{title}: {n} phrases of {n_photos} photographs ({args.split})\n\n{table(evaluation.figures())}")
    print(f"\nnamed categories that are there: {np.mean(named):.3f} of {len(named)}")
    for name, figure in said.items():
        print(f"{name}: {figure['mean']:.3f} [{figure['low']:.2f}, {figure['high']:.2f}]")
    if args.json:
        rows = {"own answers": own.cases, "given captions": given.cases}
        result["cases"] = {title: [vars(case) for case in cases] for title, cases in rows.items()}
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
