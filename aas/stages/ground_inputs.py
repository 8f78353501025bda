"""What `aas ground` is given: files, folders, URLs, patterns and stdin, and the names of their results."""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path, PurePosixPath

from aas.datasets.answers import match_answers, read_answers
from aas.datasets.sources import ImageSource
from aas.ground import Request
from aas.grounding import photograph_of
from aas.images import ImageLike, images_below, known_suffixes, name_of
from aas.images.skipped import say_what_is_skipped
from aas.photographs import ImageError, Photographs, file_of, is_elsewhere, is_url, located
from aas.stages.answering_options import check_asked
from aas.stages.ground_options import Ground
from aas.store.keys import result_keys
from aas.store.results import read_result
from aas.store.runs import RunFolder
from aas.store.shards import is_there

STDIN = "-"


@dataclass(frozen=True)
class Found:
    """An image: `shown` as people gave it, and the folder that its name is relative to."""

    source: ImageLike
    shown: str
    path: PurePosixPath


@dataclass
class Inputs:
    """`missing`: what was given and is no image, with the reason."""

    images: list[Found] = field(default_factory=list)
    missing: list[tuple[str, str]] = field(default_factory=list)


def collect(given: Iterable[str], out: Path) -> Inputs:
    """The images behind what was given; what is missing or empty is a failure of its own.

    Raises ValueError where writing into `out` would put results among the images themselves.
    """
    inputs = Inputs()
    for text in given:
        if text == STDIN:
            inputs.images.append(Found(sys.stdin.buffer.read(), text, PurePosixPath("stdin")))
        elif is_elsewhere(located(text)):
            _add_elsewhere(inputs, text, out)
        elif has_magic(text) and not Path(text).exists():
            _add_pattern(inputs, text, out)
        else:
            _add(inputs, Path(text), out)
    return inputs


def _add_elsewhere(inputs: Inputs, text: str, out: Path) -> None:
    """What is at a URL, or in shards; no pictures of results below it."""
    try:
        found = Photographs(located(text), known_suffixes()).members
    except ImageError as error:
        inputs.missing.append((text, str(error)))
        return
    for name, member in found.items():
        if str(member).startswith(f"{out}/"):
            continue
        path = PurePosixPath(name_of(member)) if member.name == text else PurePosixPath(name)
        inputs.images.append(Found(member, str(member), path))
    if not found:
        inputs.missing.append((text, f"{text}: no photographs in it"))


def _add_pattern(inputs: Inputs, pattern: str, out: Path) -> None:
    matches = sorted(glob(pattern, recursive=True))
    for match in matches:
        _add(inputs, Path(match), out)
    if not matches:
        inputs.missing.append((pattern, f"{pattern}: no file has such a name"))


def _add(inputs: Inputs, path: Path, out: Path) -> None:
    if path.is_dir():
        if path.resolve() == out.resolve():
            raise ValueError(f"--out {out} is a folder of images to ground; name another one for the results.")
        found = images_below(path, outside=[out])
        say_what_is_skipped(path, [out])
        inputs.images += [Found(one, str(one), PurePosixPath(name)) for name, one in found.items()]
        if not found:
            inputs.missing.append((str(path), f"{path}: no images in this folder"))
    elif path.is_file():
        inputs.images.append(Found(path, str(path), PurePosixPath(path.name)))
    else:
        inputs.missing.append((str(path), f"{path}: no such file or folder"))


def requests_of(inputs: Inputs, options: Ground, run: RunFolder) -> list[Request]:
    """What is asked of each image, each under a key of its own in the run folder.

    Lines of --answers about no image join what is missing.
    """
    if options.answers is None:
        keys = result_keys([found.path for found in inputs.images])
        asked = [Request(key, found.source, options.question, options.answer)
                 for key, found in zip(keys, inputs.images, strict=True)]  # fmt: skip
    else:
        asked = _given(inputs, options.answers, options)
    taken: set[str] = set()
    requests = []
    for request in asked:
        key = _free_key(request, run, taken)
        taken.add(key.casefold())
        requests.append(replace(request, key=key))
    return requests


def _given(inputs: Inputs, answers: Path, options: Ground) -> list[Request]:
    """A request for each line of --answers; of several lines about one image each has its own id as key."""
    sources = [ImageSource(found.path.as_posix(), file_of(found.shown)) for found in inputs.images]
    rows = read_answers(answers)
    check_asked(rows, options)
    matched, unmatched = match_answers(sources, rows)
    inputs.missing += [(row.key, f"{row.image}: in {answers}, but not among the images") for row in unmatched]
    by_source = dict(zip(sources, inputs.images, strict=True))
    return [
        Request(
            row.id or Path(source.key).with_suffix("").as_posix(),
            by_source[source].source,
            row.question or options.question,
            row.text or None,
            row.token_ids,
        )
        for source, row in matched
    ]


def _free_key(request: Request, run: RunFolder, taken: set[str]) -> str:
    """The request's key, with a number behind where another photograph's result has it."""
    key, n = request.key, 2
    while key.casefold() in taken or _is_anothers(run.item_path(key), request):
        key, n = f"{request.key}-{n}", n + 1
    return key


def _is_anothers(item: Path, request: Request) -> bool:
    """Whether a file is there that is no result about this photograph: another's, or none of ours."""
    if not (item.exists() or is_there(item)):
        return False
    mine = request.place
    if mine is None:
        return True
    try:
        there = photograph_of(read_result(item), item)
    except ValueError:
        return True
    return there != mine if is_url(mine) or is_url(there) else os.path.realpath(there) != os.path.realpath(mine)


def shown(request: Request) -> str:
    """The image as it was given, `-` for stdin."""
    return request.place or "-"
