"""`aas merge DIR… OUT`: run folders of one command, filled in several places, as one."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from aas.store import sharding
from aas.store.atomic import locked, write_text, written
from aas.store.description import as_text, changes
from aas.store.lines import add_lines, whole_lines
from aas.store.runs import OWN_FILES, RunFolder
from aas.store.shards import content_of, is_there, shards_of
from aas.store.spool import is_log
from aas.store.spools import ahead, names_at
from aas.store.status import open_run

OF_A_FOLDER = OWN_FILES | {"failed.jsonl", "report.html"}  # what is made anew, not carried over


def combine(folders: Sequence[Path], out: Path) -> RunFolder:
    """Put the items of run folders into `out`, which may hold some already. Nothing is written unless all fit.

    Raises ValueError for folders of other commands or options, and where two of them hold different results under one
    name.
    """
    runs = [open_run(folder) for folder in folders]
    there = [open_run(out)] if (out / "run.json").is_file() else []
    _check_alike([*there, *runs])
    whole = RunFolder(out, runs[0][0].suffix)
    _check_agree([out, *folders])
    out.mkdir(parents=True, exist_ok=True)
    for run, _ in runs:
        for path in ahead(path for path in _files(run.path) if not is_there(out / path.name)):
            _copy(path, out / path.name)
        _add_notes(run, whole)
        _add_shards(run, whole)
    _describe(whole, [description for _, description in [*there, *runs]])
    if whole.n_done() > sharding.MOST_LOOSE:
        sharding.shard(out)
    return whole


def _check_alike(runs: Sequence[tuple[RunFolder, dict[str, Any]]]) -> None:
    (first, asked), *others = runs
    for run, description in others:
        if description["command"] != asked["command"]:
            raise ValueError(
                f"{run.path} holds a run of `aas {description['command']}`, {first.path} of `aas {asked['command']}`."
            )
        if changed := list(changes(asked["arguments"], description["arguments"], ["answers"])):
            raise ValueError(f"{run.path} and {first.path} are runs with other arguments ({'; '.join(changed)}).")


def _check_agree(folders: Sequence[Path]) -> None:
    found: dict[str, Path] = {}
    for folder in folders:
        for path in [*_files(folder), *_in_shards(folder)] if folder.is_dir() else ():
            other = found.setdefault(path.name, path)
            if other is not path and content_of(other) != content_of(path):
                raise ValueError(f"{other} and {path} are different results: keep one of them, then merge again.")


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = {entry.name for entry in entries if entry.is_file()} | names_at(folder)
    ours = (name for name in sorted(names) if not name.startswith(".") and name not in OF_A_FOLDER)
    yield from (folder / name for name in ours if not is_log(name))


def _in_shards(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in shards_of(folder).names())


def _add_shards(run: RunFolder, whole: RunFolder) -> None:
    """Under their own numbers where that leaves them no larger: parts of one run fit into each other."""
    source, target, notes = shards_of(run.path), shards_of(whole.path), run.made_of.notes()
    for number in source.numbers():
        pieces = {name: piece for name, piece in source.all_pieces(number).items() if not is_there(whole.path / name)}
        if pieces:
            with locked(target.path):
                fits = len(target.notes(number)) + len(pieces) <= sharding.SHARD_ITEMS
                free = max(target.numbers(), default=-1) + 1
                sharding.put(target, number if fits else free, pieces, {name: notes.of(name) for name in pieces})


def _copy(source: Path, target: Path) -> None:
    with written(target) as temporary:
        temporary.write_bytes(content_of(source))


def _add_notes(run: RunFolder, whole: RunFolder) -> None:
    """What items are made of, and why others failed, for later starts."""
    with locked(whole.path):
        for source, target in ((run.made_of.path, whole.made_of.path), (run.failed_path, whole.failed_path)):
            there = set(map(json.dumps, whole_lines(target, lambda _: True)))
            new = [line for line in whole_lines(source, lambda _: True) if json.dumps(line) not in there]
            if new:
                add_lines(target, new)


def _describe(whole: RunFolder, descriptions: Sequence[dict[str, Any]]) -> None:
    """run.json: of all images, as far as any of the runs knew of them."""
    known = [description["n_images"] for description in descriptions if description["n_images"] is not None]
    n_images = max([*known, len(whole.items()) + len(whole.failures())])
    write_text(whole.description_path, as_text(descriptions[0] | {"n_images": n_images}))
