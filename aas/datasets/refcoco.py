"""RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` (or google, umd), a pickle, and `instances.json`, COCO's annotation.

Layout: https://github.com/lichengunc/refer. Each reference names an annotation and has several sentences about it.
gRefCOCO (arXiv 2306.00968) has `grefs(unc).json`, whose references list any number of annotations; where there are none
([-1]), nothing is to be found.
"""

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from aas.choices import check
from aas.datasets.coco import read_lists
from aas.datasets.expressions import (
    Expression,
    ExpressionDataset,
    Expressions,
    Say,
    Sentences,
    Target,
    chosen,
    concatenated,
    mask_of,
    what_is_wrong,
    without_duplicates,
)
from aas.datasets.sources import read_json
from aas.rle import empty, side_of, union
from aas.spellings import id_text

SAY = "This image shows {expression}."
Entries = dict[str | None, dict[str, Any]]  # of an annotation, by id as text


@dataclass(frozen=True, kw_only=True)
class RefCoco(ExpressionDataset):
    """RefCOCO, RefCOCO+, RefCOCOg: each expression names a thing."""

    examples: ClassVar = (
        "--refs refcoco/ --split val",
        '--refs refcoco/ --split val --ask "Where is {expression}?"',
        "--refs refcoco/ --split val --sentences first --concat",
    )

    refs: Annotated[
        Path, typer.Option(help="Folder with refs(unc).p and instances.json, or the file refs(….p) itself.")
    ]
    split: Annotated[str, typer.Option(help="val, testA, testB, test or train.")] = "val"
    split_by: Annotated[str | None, typer.Option(help="unc, google or umd. Default: the only one there is.")] = None
    sentences: Annotated[Sentences, typer.Option(help="Of each reference.")] = "all"
    instances: Annotated[Path | None, typer.Option(help="Default: instances.json beside the refs.")] = None
    say: Say = SAY
    ask: Annotated[str | None, typer.Option(help="Ask this instead: the model answers.")] = None
    concat: Annotated[
        bool, typer.Option(help="All expressions of a photograph as one answer, each with a full stop, as F-LMM does.")
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.concat and (self.say != SAY or self.ask is not None):
            raise ValueError("--concat makes one answer of many expressions: leave --say and --ask out.")

    def read(self) -> Expressions:
        """Expressions in the order of the file. The split `test` takes every part of it."""
        check("--sentences", self.sentences, Sentences)
        path = refs_file(self.refs, self.split_by)
        refs = _of_split(read_refs(path), self.split, path)
        images, annotations = _instances(self.instances or path.parent / "instances.json")
        items: list[Expression] = []
        problems: list[str] = []
        for ref in refs:
            try:
                items += _of_reference(ref, images, annotations, self.sentences, problems)
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"reference {id_text(ref['ref_id'])}: {what_is_wrong(error)}")
        found = without_duplicates(items, problems)
        return Expressions(concatenated(found.items), found.problems) if self.concat else found


class _PlainUnpickler(pickle._Unpickler):
    """Builds lists, dicts, tuples, words and numbers. A pickle that names anything else could run code: it is refused
    before that is imported. The one in Python, not the one in C, which a few damaged bytes let take 60 GB: a file of
    20 MB takes 5 seconds instead of 1.5."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}, and plain lists and dicts need nothing")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The references of a pickle by Python 2 or 3, or of gRefCOCO's JSON; raises ValueError for what is none, or would
    run code."""
    refs = read_json(path) if path.suffix == ".json" else _unpickled(path)
    needed = ("ref_id", "ann_id", "split", "sentences")
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and set(needed) <= set(ref) for ref in refs):
        raise ValueError(f"{path} is no list of references, each with {', '.join(needed)}.")
    return refs


def _unpickled(path: Path) -> object:
    with path.open("rb") as file:
        try:
            return _PlainUnpickler(file, encoding="latin1").load()
        except Exception as error:  # damaged pickles raise about everything
            raise ValueError(f"{path} is no pickle of references: {error}.") from error


def refs_file(refs: Path, split_by: str | None) -> Path:
    """`refs`, or where it is a folder its `refs(SPLIT_BY).p`, or the only one there is."""
    if not refs.is_dir():
        return refs
    there = sorted([*refs.glob("refs(*).p"), *refs.glob("grefs(*).json")])
    chosen = [path for path in there if split_by in (None, path.stem.partition("(")[2].removesuffix(")"))]
    if len(chosen) != 1:
        names = ", ".join(path.name for path in there) or "none"
        raise ValueError(f"--refs {refs}: choose one of its files refs(…).p with --split-by; there are: {names}.")
    return chosen[0]


def _of_split(refs: list[dict[str, Any]], split: str, path: Path) -> list[dict[str, Any]]:
    splits = sorted({str(ref["split"]) for ref in refs})
    taken = [name for name in splits if name == split or (split == "test" and "test" in name)]
    if not taken:
        raise ValueError(f"{path} has no split {split!r}; it has: {', '.join(splits)}.")
    return [ref for ref in refs if ref["split"] in taken]


def _of_reference(
    ref: dict[str, Any], images: Entries, annotations: Entries, sentences: Sentences, problems: list[str]
) -> list[Expression]:
    """Its expressions; a sentence without words is left out and becomes a problem."""
    named = _things(ref, annotations)
    image = images.get(id_text(named[0]["image_id"] if named else ref.get("image_id")))
    if image is None:
        raise ValueError("its image is not in instances.json")
    ref_id = id_text(ref["ref_id"])
    items = []
    for number, sentence in chosen(ref["sentences"], sentences, ref_id):
        text = sentence["sent"]
        if isinstance(text, str) and text.strip():
            name = f"{ref_id}_{id_text(sentence.get('sent_id', number))}"
            items.append(Expression(name, image["file_name"], text.strip(), partial(_targets, named, image)))
        else:
            problems.append(f"reference {ref_id}: sentence {number} is empty")
    return items


def _things(ref: dict[str, Any], annotations: Entries) -> list[dict[str, Any]]:
    """The annotations that a reference names: one, or in gRefCOCO several, or none (an empty list, or -1)."""
    ids = ref["ann_id"]
    wanted = [id_text(one) for one in ids if one != -1] if isinstance(ids, list) else [id_text(ids)]
    unknown = [one for one in wanted if one not in annotations]
    if unknown:
        raise ValueError(f"its annotation {ids} is not in instances.json")
    return [annotations[one] for one in wanted]


def _instances(path: Path) -> tuple[Entries, Entries]:
    """Images and annotations by id."""
    content = read_lists(path, "images", "annotations")
    images, annotations = ({id_text(one.get("id")): one for one in content[what]} for what in ("images", "annotations"))
    return images, annotations


def _targets(named: list[dict[str, Any]], image: dict[str, Any]) -> list[Target]:
    """One mask of all that is named."""
    height, width = (side_of(image[name]) for name in ("height", "width"))
    if height is None or width is None:
        raise ValueError(f"its image is {image['height']!r} x {image['width']!r} pixels large")
    masks = [mask_of(one["segmentation"], height, width) for one in named]
    return [Target(union(masks) if masks else empty((height, width)))]
