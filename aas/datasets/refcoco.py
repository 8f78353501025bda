"""RefCOCO, RefCOCO+ and RefCOCOg: `refs(unc).p` (or google, umd), a pickle, and `instances.json`, COCO's annotation.

Layout: https://github.com/lichengunc/refer. Each reference names an annotation and has several sentences about it.
"""

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from aas.datasets.expressions import (
    Expression,
    ExpressionDataset,
    Expressions,
    Say,
    Sentences,
    Target,
    how_many,
    mask_of,
    what_is_wrong,
    without_duplicates,
)
from aas.datasets.sources import read_json

Entries = dict[Any, dict[str, Any]]  # of an annotation, by id


@dataclass(frozen=True, kw_only=True)
class RefCoco(ExpressionDataset):
    """RefCOCO, RefCOCO+, RefCOCOg: each expression names a thing."""

    examples: ClassVar = (
        "--refs refcoco/ --split val",
        '--refs refcoco/ --split val --ask "Where is {expression}?"',
    )

    refs: Annotated[
        Path, typer.Option(help="Folder with refs(unc).p and instances.json, or the file refs(….p) itself.")
    ]
    split: Annotated[str, typer.Option(help="val, testA, testB, test or train.")] = "val"
    split_by: Annotated[str | None, typer.Option(help="unc, google or umd. Default: the only one there is.")] = None
    sentences: Annotated[Sentences, typer.Option(help="Of each reference.")] = "all"
    instances: Annotated[Path | None, typer.Option(help="Default: instances.json beside the refs.")] = None
    say: Say = "This image shows {expression}."
    ask: Annotated[str | None, typer.Option(help="Ask this instead: the model answers.")] = None

    def read(self) -> Expressions:
        """Expressions in the order of the file. The split `test` takes every part of it."""
        path, n_sentences = refs_file(self.refs, self.split_by), how_many(self.sentences)
        refs = _of_split(read_refs(path), self.split, path)
        images, annotations = _instances(self.instances or path.parent / "instances.json")
        items: list[Expression] = []
        problems: list[str] = []
        for ref in refs:
            try:
                items += _of_reference(ref, images, annotations, n_sentences)
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"reference {ref['ref_id']}: {what_is_wrong(error)}")
        return without_duplicates(items, problems)


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, tuples, words and numbers. A pickle that names anything else could run code: it is refused
    before that is imported."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants to import {module}.{name}, and plain lists and dicts need nothing")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """The references of a pickle by Python 2 or 3; raises ValueError for what is none, or would run code."""
    with path.open("rb") as file:
        try:
            refs = _PlainUnpickler(file, encoding="latin1").load()
        except Exception as error:  # damaged pickles raise about everything
            raise ValueError(f"{path} is no pickle of references: {error}.") from error
    needed = ("ref_id", "ann_id", "split", "sentences")
    if not isinstance(refs, list) or not all(isinstance(ref, dict) and set(needed) <= set(ref) for ref in refs):
        raise ValueError(f"{path} is no list of references, each with {', '.join(needed)}.")
    return refs


def refs_file(refs: Path, split_by: str | None) -> Path:
    """`refs`, or where it is a folder its `refs(SPLIT_BY).p`, or the only one there is."""
    if not refs.is_dir():
        return refs
    there = sorted(refs.glob("refs(*).p"))
    chosen = [path for path in there if split_by in (None, path.name[5:-3])]
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
    ref: dict[str, Any], images: Entries, annotations: Entries, n_sentences: int | None
) -> list[Expression]:
    annotation = annotations.get(ref["ann_id"])
    image = images.get(annotation["image_id"]) if annotation else None
    if annotation is None or image is None:
        raise ValueError(f"its annotation {ref['ann_id']}, or that one's image, is not in instances.json")
    items = []
    for number, sentence in enumerate(ref["sentences"][:n_sentences]):
        text = str(sentence["sent"]).strip()
        if not text:
            raise ValueError(f"sentence {number} is empty")
        name = f"{ref['ref_id']}_{sentence.get('sent_id', number)}"
        items.append(Expression(name, image["file_name"], text, partial(_targets, annotation, image)))
    return items


def _instances(path: Path) -> tuple[Entries, Entries]:
    """Images and annotations by id."""
    content = read_json(path)
    if not isinstance(content, dict) or not {"images", "annotations"} <= set(content):
        raise ValueError(f"{path} is no COCO annotation: it lacks images or annotations.")
    images, annotations = ({entry["id"]: entry for entry in content[what]} for what in ("images", "annotations"))
    return images, annotations


def _targets(annotation: dict[str, Any], image: dict[str, Any]) -> list[Target]:
    return [Target(mask_of(annotation["segmentation"], image["height"], image["width"]))]
