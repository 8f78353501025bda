"""`aas compare maps`: which map source points best, on photographs whose things are known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from aas import rle
from aas.datasets.answers import GivenAnswer, read_answers
from aas.datasets.coco import Findings, TrueAnnotation, note
from aas.datasets.instances import InstanceTruth, read_truth
from aas.evaluations import report
from aas.ground import Grounder
from aas.images import read_image
from aas.loading import is_ours
from aas.maps import names_of
from aas.metrics import bootstrap
from aas.metrics.maps import best_iou, map_figures
from aas.metrics.mean import mean_evidence
from aas.photographs import File
from aas.phrases.categories import CategoryMatcher
from aas.phrases.parser import chosen_phrases
from aas.pointing.masks import phrase_masks
from aas.pointing.phrases import prompted
from aas.records import Answer, Phrase
from aas.stages.compare_maps_options import CompareMaps
from aas.store.photographs import image_file

SMALL = 0.3  # of the photograph: things below it are counted apart
FIGURES = ("point", "point, small", "AUC", "NSS", "Otsu IoU", "mask IoU")


@dataclass(frozen=True)
class Thing:
    """A category in a photograph: its masks bool [H, W], all of it first, then each instance."""

    name: str
    masks: list[np.ndarray]


@dataclass(frozen=True)
class Case:
    """A phrase of an answer about the photograph of that number, and the figures of each source."""

    image: int
    phrase: str
    category: str
    area: float
    figures: Mapping[str, Mapping[str, float]]


def compare_maps(options: CompareMaps) -> int:
    """Print the table, write the JSON; returns the exit code. ValueError or OSError where the options cannot work."""
    findings: Findings = {}
    truth = read_truth(options.gt, findings)
    masks = _by_photograph(truth)
    files = {name: image_file(options.images, name) for name in masks}
    names = names_of(options.maps)
    rows = _rows(options, files)
    loading = {name: getattr(options, name) for name in ("device", *options.loading())}
    models = (options.model, options.segmenter, options.phrases)
    grounder = Grounder(*models, maps=names, read_out=options.read_out, **loading)
    named = {truth.categories[mask.category] for some in masks.values() for mask in some}
    matcher = CategoryMatcher(grounder.pipeline, sorted(named))
    cases: list[Case] = []
    for row in tqdm(rows, unit="answer"):
        try:
            things = _things(masks[row.image], truth.categories)
            cases += _cases(grounder, matcher, options, row, files, things)
        except Exception as error:
            if not (is_ours(error) or isinstance(error, ValueError | OSError)):
                raise
            note(findings, "unreadable_files", f"{row.image}: {error}")
    if not cases:
        raise ValueError("No phrase of any answer names a category of its photograph: nothing can be compared.")
    content = _content(names, cases, options)
    if options.json_file:
        report.write_json(options.json_file, content)
    report.say_findings(findings)
    print(as_table(content))
    return report.exit_code(findings)


def _by_photograph(truth: InstanceTruth) -> dict[str, list[TrueAnnotation]]:
    """The masks of known categories, by the name of their photograph; all photographs are there."""
    found: dict[str, list[TrueAnnotation]] = {name: [] for name in truth.names.values()}
    for mask in truth.masks:
        if mask.category in truth.categories:
            found[truth.names[mask.image]].append(mask)
    return found


def _things(masks: Sequence[TrueAnnotation], categories: Mapping[str, str]) -> list[Thing]:
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
            found.append(Thing(categories[category], [union, *parts]))
    return found


def _rows(options: CompareMaps, files: Mapping[str, File]) -> list[GivenAnswer]:
    """What is said, or asked, about photographs that are there."""
    there = {name for name, path in files.items() if path.is_file()}
    if not there:
        raise ValueError(f"--images {options.images}: none of the photographs of {options.gt} is there.")
    rows = read_answers(options.answers) if options.answers else [GivenAnswer(name) for name in sorted(there)]
    return [row for row in rows if row.image in there]


def _cases(
    grounder: Grounder,
    matcher: CategoryMatcher,
    options: CompareMaps,
    row: GivenAnswer,
    files: Mapping[str, File],
    things: Sequence[Thing],
) -> Iterator[Case]:
    """Of each phrase of one answer that names something in the photograph."""
    pixels = read_image(files[row.image])
    asked = (row.question or options.question, row.text or None, row.token_ids)
    prepared = grounder.lmm.prepare(pixels, *asked, grounder.ask_options)
    ((answer, attention),) = grounder.lmm.run([prepared], grounder.ask_options)
    phrases, _ = chosen_phrases(grounder.pipeline, answer, words=grounder.pointing.words)
    named = [(phrase, thing) for phrase in phrases if (thing := _named(matcher, options, answer, phrase, things))]
    if not named:
        return
    embedding = None if options.no_masks else grounder.encoded.of({row.image: pixels})[row.image]
    found: list[dict[str, dict[str, float]]] = [{} for _ in named]
    for source in attention.sources:
        maps = attention.of(source)
        pointed = prompted([phrase for phrase, _ in named], answer, maps, grounder.pointing, pixels.shape[:2])
        for figures, one, (_, thing) in zip(found, pointed, named, strict=True):
            figures[source] = map_figures(one.map, one.view, one.point_xy, thing.masks)
        if embedding is not None:
            masks = phrase_masks(grounder.segmenter, embedding, pointed, grounder.mask_choice)
            for figures, mask, (_, thing) in zip(found, masks, named, strict=True):
                figures[source]["mask IoU"] = best_iou(mask.masks[0], thing.masks)
    image = list(files).index(row.image)
    for figures, (phrase, thing) in zip(found, named, strict=True):
        yield Case(image, phrase.text, thing.name, float(thing.masks[0].mean()), figures)


def _named(
    matcher: CategoryMatcher, options: CompareMaps, answer: Answer, phrase: Phrase, things: Sequence[Thing]
) -> Thing | None:
    """What a phrase names of what is in the photograph: the nearest category by word vectors, an oracle."""
    best = matcher.best(answer.text[slice(*phrase.root_span)], [matcher.names.index(one.name) for one in things])
    if best is None or best[1] < options.category_thresh:
        return None
    return next(one for one in things if one.name == matcher.names[best[0]])


def _evidence(cases: Sequence[Case], source: str) -> dict[str, Any]:
    """Figure -> its evidence, over the photographs of the cases."""
    places = {image: i for i, image in enumerate(sorted({case.image for case in cases}))}
    images = [places[case.image] for case in cases]
    found = {}
    for name in FIGURES:
        counted = [case.area < SMALL or "small" not in name for case in cases]
        values = [case.figures[source].get(name.partition(",")[0], np.nan) for case in cases]
        if not np.isnan(values).any():
            found[name] = mean_evidence(np.array(values) * counted, images, counted)
    return found


def _content(names: Sequence[str], cases: Sequence[Case], options: CompareMaps) -> dict[str, Any]:
    n_images = len({case.image for case in cases})
    common, sizes = [(i, i) for i in range(n_images)], (n_images, n_images)
    evidence = {name: _evidence(cases, name) for name in names}
    figures = {name: report.numbers(of, n_images) for name, of in evidence.items()}
    first, *others = names
    resampling = (options.n_resamples, options.seed)
    return {
        "figures": figures,
        "intervals": {name: bootstrap.intervals(of, n_images, *resampling) for name, of in evidence.items()},
        "differences": {
            name: bootstrap.differences(evidence[first], evidence[name], common, sizes, *resampling) for name in others
        },
        "counts": {"phrases": len(cases), "images": n_images, "small": sum(case.area < SMALL for case in cases)},
        "cases": [vars(case) for case in cases],
        "settings": {"model": options.model, "maps": list(names), "read_out": options.read_out},
    }


def as_table(content: Mapping[str, Any]) -> str:
    """A line for each source: its figures, and their differences to the first one's with 95 % intervals."""
    first, *others = content["settings"]["maps"]
    shown = [name for name in FIGURES if name in content["figures"][first]]
    rows = [[first, *(report.cell(content["figures"][first][name]) for name in shown)]]
    for source in others:
        rows.append([source, *(f"{content['figures'][source][name]:.3f}" for name in shown)])
        changes = (content["differences"][source].get(name) for name in shown)
        rows.append(["", *("–" if one is None else report.change(one) for one in changes)])
    counts = content["counts"]
    small = f"{counts['small']} of things below {SMALL:.0%} of their photograph"
    said = f"{counts['phrases']} phrases of {counts['images']} photographs, {small}"
    return f"{report.markdown(['source', *shown], rows)}\n\n{said}; below each source: its difference to {first}."
