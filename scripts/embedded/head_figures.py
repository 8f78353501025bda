"""Masks of trained heads beside those without training, on photographs that none of the models was trained on.

    python scripts/embedded/head_figures.py --head trained/unet-embedded/head.safetensors [--head ...] \\
        [--split choose|figures] [--captions N] [--json FILE]

The photographs' own captions are given; phrases, categories and IoU are those of evaluate.py: a phrase that names a
category in sight (cosine >= 0.7), its mask's best IoU with the category's union or one instance. Training-free is what
`aas ground` does; the ideal point is the deepest of the union. All share the segmenter. Intervals: 95 %, bootstrap over
photographs, of differences too: the same draws for both.
"""

import argparse
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
Matched = Sequence[tuple[Phrase, Thing]]


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

    def cases(self, image_id: int, pixels: np.ndarray, captions: Sequence[str], things: list[Thing]) -> Iterator[Case]:
        by_name = {thing.name: thing for thing in things}
        embedding = self.grounder.encoded.of({image_id: pixels})[image_id]
        for caption in captions:
            answer, maps = self.evaluation.ask(pixels, " ".join(caption.split()))
            phrases = noun_phrases(self.grounder.pipeline, answer)
            named = [(phrase, self.evaluation.category_of(answer, phrase, by_name)) for phrase in phrases]
            matched = [(phrase, by_name[name]) for phrase, name in named if name is not None]
            masks = self._masks(pixels, answer, maps, matched, embedding) if matched else {}
            for i, (phrase, thing) in enumerate(matched):
                ious = {way: thing.nearest(some[i])[0] for way, some in masks.items()}
                yield Case(image_id, phrase.text, float(thing.union.mean()), ious)

    def _masks(
        self, pixels: np.ndarray, answer: Answer, maps: AttentionMaps, matched: Matched, embedding: ImageEmbedding
    ) -> dict[str, list[np.ndarray]]:
        """Of each way a mask of each phrase."""
        free = prompted([phrase for phrase, _ in matched], answer, maps, self.grounder.pointing, pixels.shape[:2])
        points = {FREE: free, IDEAL: [_ideal(one, thing) for one, (_, thing) in zip(free, matched, strict=True)]}
        masks = {way: phrase_masks(self.grounder.segmenter, embedding, some, "last") for way, some in points.items()}
        prepared = self.grounder.lmm.prepare(pixels, DEFAULT_QUESTION, answer.text)
        for name, head in self.heads.items():
            masks[name] = head(prepared, answer, [phrase for phrase, _ in matched], embedding)
        return {way: [one.masks[0] for one in some] for way, some in masks.items()}


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
        said = [one["caption"] for one in captions[image_id]][: args.captions]
        cases += compared.cases(image_id, pixels, said, things)
    if args.json:
        args.json.write_text(json.dumps([vars(case) for case in cases], indent=1))
    print(
        f"{len(cases)} phrases of {len({case.image_id for case in cases})} photographs ({args.split})\n\n{table(cases)}"
    )


if __name__ == "__main__":
    main()
