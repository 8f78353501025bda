"""The page of `aas compare maps`: each photograph with all map sources side by side, phrase by phrase."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from aas.datasets.coco import Findings
from aas.phrases.reasoning import tokens_of_answer
from aas.records import GroundedPhrase
from aas.stages.compare_maps_answers import Looked
from aas.stages.compare_maps_options import CompareMaps
from aas.view.report import About, Report
from aas.view.report_entry import Maps, Panel, entry, maps_of

NOTED = {"AUC": "AUC", "NSS": "NSS", "mask IoU": "IoU", "deletion": "deletion"}
HITS = "hits"
LEGEND = [
    ("Masks", "the true ones"),
    ("Numbers of a photograph", "the share of its phrases that a source points at"),
    ("Hits of a phrase", "the share of sources that point at it"),
]


class MapsPage:
    """Grows by an answer at a time, and is written once."""

    def __init__(self, path: Path, names: Sequence[str], options: CompareMaps):
        said = "given" if options.answers else "the model's own"
        facts = [
            ("Model", options.model),
            ("Answers", said),
            ("Point", options.read_out),
            ("Sources", ", ".join(names)),
        ]
        self.report = Report(path, About("Map sources side by side", [*facts, *LEGEND]))

    def add(self, looked: Looked) -> None:
        """One answer about one photograph."""
        image, key = looked.row.image, looked.row.key
        name = image if key == image else f"{image} · {key}"
        hits = {source: fmean(one[source]["point"] for one in looked.figures) for source in looked.pointed}
        self.report.add(name, entry(name, looked.image, [_panel(looked)], hits))

    def write(self, findings: Findings) -> None:
        """With what could not be shown."""
        self.report.write([("", said) for said in findings.get("unreadable_files", [])])


def _panel(looked: Looked) -> Panel:
    first = next(iter(looked.pointed.values()))
    phrases = [
        GroundedPhrase(one.phrase, one.map, one.point_xy, thing.masks[0], 0.0)
        for one, thing in zip(first, looked.things, strict=True)
    ]
    tokens = [one.phrase.token_indices for one in first]
    found = maps_of(looked.attention, tokens, tokens_of_answer(looked.answer))
    maps = [_own(maps, source, looked) for maps, source in zip(found, looked.pointed, strict=True)]
    hits = [fmean(of[source]["point"] for source in of) for of in looked.figures]
    return Panel(looked.answer, phrases, maps=maps, figures={HITS: hits}, is_found=False)


def _own(maps: Maps, source: str, looked: Looked) -> Maps:
    """With the source's own point, and how well it did, phrase by phrase."""
    points_xy = [one.point_xy for one in looked.pointed[source]]
    return replace(maps, name=source, points_xy=points_xy, notes=[_note(of[source]) for of in looked.figures])


def _note(figures: dict[str, float]) -> str:
    values = (f"{shown} {figures[name]:.2f}".replace("-", "−") for name, shown in NOTED.items() if name in figures)
    return " · ".join(["on it" if figures["point"] else "beside it", *values])
