"""Masks of trained heads beside those without training, on photographs that none of the models was trained on.

    python scripts/embedded/head_figures.py --head trained/unet-embedded/head.safetensors [--head ...] \\
        [--split choose|figures] [--captions N | --own] [--json FILE]

The photographs' own captions are given, or with --own the model answers; phrases, categories and IoU are those of
evaluate.py: a phrase that names a category in sight (cosine >= 0.7), its mask's best IoU with the category's union or
one instance. Training-free is what `aas ground` does; the ideal point is the deepest of the union. All share the
segmenter. Intervals: 95 %, bootstrap over photographs, of differences too: the same draws for both. Besides: of all
pairs of an answer's phrases whose root words differ, how many have one mask (IoU above 0.8).
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from answer_figures import interval
from evaluate import Evaluation, Thing, photographs
from pycocotools.coco import COCO
from split import default_data_dir, kept_out
from tqdm import tqdm

from aas import Grounder
from aas.geometry import deepest_xy
from aas.headed import HeadMasks
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import noun_phrases
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import Pointed, prompted
from aas.presets import DEFAULT_QUESTION
from aas.records import Answer, AttentionMaps, Phrase, Prompt
from aas.segmenters.base import ImageEmbedding

FREE, IDEAL = "training-free", "ideal point"
SMALL = 0.3  # of the picture
SHARED = 0.8  # IoU above which two masks are one


@dataclass(frozen=True)
class Case:
    """A phrase of a caption, the share of the picture that it names, and the IoU of each way to its mask."""

    image_id: int
    phrase: str
    area: float
    iou: dict[str, float]


class Compared:
    """Heads, by name, beside the masks of points."""

    def __init__(self, grounder: Grounder, heads: Mapping[str, HeadMasks], names: Sequence[str]):
        self.grounder, self.heads = grounder, heads
        self.evaluation = Evaluation(grounder, CategoryMatcher(grounder.pipeline, names), 0.7, 0)
        self.shared: dict[str, list[bool]] = {}

    def cases(
        self, image_id: int, pixels: np.ndarray, captions: Sequence[str | None], things: list[Thing]
    ) -> Iterator[Case]:
        """Of captions, or where one is None of the model's own answer."""
        by_name = {thing.name: thing for thing in things}
        embedding = self.grounder.encoded.of({image_id: pixels})[image_id]
        for caption in captions:
            answer, maps = self.evaluation.ask(pixels, caption and " ".join(caption.split()))
            phrases = noun_phrases(self.grounder.pipeline, answer)
            if not phrases:
                continue
            named = [self.evaluation.category_of(answer, phrase, by_name) for phrase in phrases]
            meant = [None if name is None else by_name[name] for name in named]
            masks = self._masks(pixels, answer, maps, phrases, meant, embedding)
            self._compare(answer, phrases, masks)
            for i, (phrase, thing) in enumerate(zip(phrases, meant, strict=True)):
                if thing is not None:
                    ious = {way: thing.nearest(some[i])[0] for way, some in masks.items()}
                    yield Case(image_id, phrase.text, float(thing.union.mean()), ious)

    def _masks(
        self,
        pixels: np.ndarray,
        answer: Answer,
        maps: AttentionMaps,
        phrases: Sequence[Phrase],
        meant: Sequence[Thing | None],
        embedding: ImageEmbedding,
    ) -> dict[str, list[np.ndarray]]:
        """Of each way a mask of each phrase; where it means nothing in sight, the ideal point is that of its map."""
        free = prompted(phrases, answer, maps, self.grounder.pointing, pixels.shape[:2])
        ideal = [_ideal(one, thing) if thing else one for one, thing in zip(free, meant, strict=True)]
        points = {FREE: free, IDEAL: ideal}
        masks = {way: phrase_masks(self.grounder.segmenter, embedding, some, "last") for way, some in points.items()}
        prepared = self.grounder.lmm.prepare(pixels, DEFAULT_QUESTION, answer.text)
        for name, head in self.heads.items():
            masks[name] = head(prepared, answer, phrases, embedding)
        return {way: [one.masks[0] for one in some] for way, some in masks.items()}

    def _compare(self, answer: Answer, phrases: Sequence[Phrase], masks: Mapping[str, Sequence[np.ndarray]]) -> None:
        roots = [phrase.root_in(answer.text).lower() for phrase in phrases]
        for i, j in itertools.combinations(range(len(phrases)), 2):
            if roots[i] != roots[j]:
                for way, some in masks.items():
                    common, either = (some[i] & some[j]).sum(), (some[i] | some[j]).sum()
                    self.shared.setdefault(way, []).append(bool(common > SHARED * either))


def _ideal(pointed: Pointed, thing: Thing) -> Pointed:
    inside = deepest_xy(thing.union)
    return replace(pointed, point_xy=inside, prompt=Prompt(np.asarray([inside], np.float32), np.ones(1, np.int64)))


def mean(cases: Sequence[Case], value: Callable[[Case], float]) -> dict[str, float]:
    """Over phrases, with its interval over photographs."""
    groups: dict[int, list[float]] = {}
    for case in cases:
        groups.setdefault(case.image_id, []).append(value(case))
    return interval([sum(values) for values in groups.values()], [len(values) for values in groups.values()])


def table(cases: Sequence[Case]) -> str:
    """Markdown: mean IoU of each way, and how much better it is than the way without training."""
    lines = [
        "| masks by | mean IoU | of things < 30 % of the picture | better than training-free by |",
        "|---|---|---|---|",
    ]
    small = [case for case in cases if case.area < SMALL]
    for way in cases[0].iou:
        cells = [_cell(mean(some, lambda case: case.iou[way])) for some in (cases, small)]  # noqa: B023
        gain = "" if way == FREE else _cell(mean(cases, lambda case: case.iou[way] - case.iou[FREE]))  # noqa: B023
        lines.append(f"| {' | '.join([way, *cells, gain])} |")
    return "\n".join(lines)


def _cell(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data_dir())
    parser.add_argument("--head", type=Path, action="append", required=True, help="a file; several are compared")
    parser.add_argument("--split", choices=["figures", "choose"], default="choose")
    parser.add_argument("--captions", type=int, help="of a photograph, at most; default: all")
    parser.add_argument("--own", action="store_true", help="the model's own answers instead")
    parser.add_argument("--json", type=Path, help="write every phrase to this file")
    args = parser.parse_args()

    annotations = args.data / "coco/annotations"
    coco = COCO(annotations / "instances_subset_val2017.json")
    captions = COCO(annotations / "captions_subset_val2017.json").imgToAnns
    ids = kept_out(args.data)[args.split == "figures"]
    grounder = Grounder()
    heads = {str(path): HeadMasks(path, grounder.lmm, grounder.segmenter, "embedded") for path in args.head}
    compared = Compared(grounder, heads, [category["name"] for category in coco.dataset["categories"]])
    cases: list[Case] = []
    for image_id, pixels, things in tqdm(photographs(coco, args.data, ids), total=len(ids), unit="photo"):
        said = [None] if args.own else [one["caption"] for one in captions[image_id]][: args.captions]
        cases += compared.cases(image_id, pixels, said, things)
    if args.json:
        args.json.write_text(json.dumps([vars(case) for case in cases], indent=1))
    print(
        f"{len(cases)} phrases of {len({case.image_id for case in cases})} photographs ({args.split})\n\n{table(cases)}"
    )
    for way, shared in compared.shared.items():
        print(f"{way}: {np.mean(shared):.3f} of {len(shared)} pairs of phrases have one mask")


if __name__ == "__main__":
    main()
