"""What a run folder of many items costs: to list it, to go on with it, to tell its status; per item, and in memory.

    python scripts/bench_scale.py --items 1000 10000 100000 1000000 --out work/scale

The items are next to nothing, as are their photographs: only the store's own share is measured, each number of items in
a process of its own, in seconds of its processor. More than 10,000 lie in shards, as a run leaves them. To go on is all
that `aas infer-attn` does in such a folder: it lists the photographs, and finds each of them done, and as it was. The
last column is its time per item, as a multiple of the first row's. Images/s against workers: `bench_workers.py`.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

from aas.stages import infer_attn
from aas.stages.infer_attn_options import InferAttn
from aas.store.atomic import locked
from aas.store.pieces import Piece
from aas.store.runs import RunFolder
from aas.store.sharding import MOST_LOOSE, SHARD_ITEMS, put
from aas.store.shards import RESULT, shards_of
from aas.store.status import status

HEADER = b'{"maps":{"dtype":"F32","shape":[1,1,1],"data_offsets":[0,4]}}   '
ITEM = len(HEADER).to_bytes(8, "little") + HEADER + bytes(4)
DIGEST = "0" * 64
PHOTOS, RUN = "photos", "run"
Notes = dict[str, dict[str, Any]]  # by item


@dataclass(frozen=True)
class Photo:
    """An item: a photograph and its key."""

    key: str
    image: Path


@dataclass(frozen=True)
class Spent:
    """Seconds of the processor, and megabytes at most."""

    items: int
    listing: float
    going_on: float
    status: float
    megabytes: float


def main() -> None:
    options = arguments()
    if options.measure:
        print(json.dumps(vars(measured(options.out, options.items[0]))))
        return
    print("| items | list | go on | status | memory | go on, each |\n|---|---|---|---|---|---|", flush=True)
    shutil.rmtree(options.out, ignore_errors=True)
    first = 0.0
    for n_items in options.items:
        filled(options.out, n_items)
        command = [sys.executable, __file__, "--measure", "--items", str(n_items), "--out", str(options.out)]
        spent = Spent(**json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
        each = spent.going_on / n_items
        first = first or each
        print(
            f"| {n_items} | {spent.listing:.2f} s | {spent.going_on:.2f} s | {spent.status:.2f} s | "
            f"{spent.megabytes:.0f} MB | {1e6 * each:.0f} µs, {each / first:.2f} |",
            flush=True,
        )
    shutil.rmtree(options.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path, default=Path("work/scale"), help="emptied first, and taken away")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def photographs(folder: Path, n_items: int) -> Iterator[Photo]:
    """As many in each folder as people keep there."""
    for i in range(n_items):
        name = f"{i // 1000:04}/{i % 1000:03}.jpg"
        yield Photo(name, folder / PHOTOS / name)


def filled(folder: Path, n_items: int) -> None:
    """A run folder in which everything is done. The photographs of the one before stay."""
    shutil.rmtree(folder / RUN, ignore_errors=True)
    (folder / RUN).mkdir(parents=True)
    os.fsync = lambda _: None  # it is thrown away
    run = RunFolder(folder / RUN, ".safetensors")
    run.begin("infer-attn", asked_for(folder).deciding(), {"n_images": n_items})
    photos = photographs(folder, n_items)
    notes = ({run.item_name(photo.key): noted(photo) for photo in islice(photos, SHARD_ITEMS)} for _ in count())
    (in_shards if n_items > MOST_LOOSE else as_files)(run, takewhile(bool, notes))


def asked_for(folder: Path) -> InferAttn:
    """The command that the folder is filled by."""
    return InferAttn(images=folder / PHOTOS, out=folder / RUN)


def noted(photo: Photo) -> dict[str, Any]:
    """What a run notes of an item that is done."""
    return {"photograph": [DIGEST, made(photo.image)], RESULT: [DIGEST, None]}


def made(photograph: Path) -> list[int]:
    """An empty file, and how it is told that it is the same later."""
    made_folder(photograph.parent)
    os.close(os.open(photograph, os.O_CREAT))
    found = os.stat(photograph)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


@cache
def made_folder(folder: Path) -> None:
    """Once."""
    folder.mkdir(parents=True, exist_ok=True)


def as_files(run: RunFolder, parts: Iterable[Notes]) -> None:
    """Each item by itself."""
    for notes in parts:
        for name in notes:
            (run.path / name).write_bytes(ITEM)
        run.made_of.add([{"item": name, **note} for name, note in notes.items()])


class Same(Piece):
    """The bytes of an item, of which no file is opened: all have the same."""

    def body(self) -> Iterator[bytes]:
        yield ITEM[self.start :]


def in_shards(run: RunFolder, parts: Iterable[Notes]) -> None:
    """As a run leaves them."""
    one = run.path / ".item"
    piece = Same(one, len(ITEM) - 4, len(ITEM), ITEM[:-4])
    with locked(shards_of(run.path).path):
        for number, notes in enumerate(parts):
            put(shards_of(run.path), number, dict.fromkeys(notes, piece), notes)


def measured(folder: Path, n_items: int) -> Spent:
    run = RunFolder(folder / RUN, ".safetensors")
    time.sleep(3)  # files that are younger than two seconds are read, not looked at
    start = time.process_time()
    assert run.n_done() == n_items
    listed = time.process_time()
    assert status(run.path)["done"] == n_items
    told = time.process_time()
    infer_attn._load = no_model
    assert infer_attn.infer_attn(asked_for(folder)) == 0
    went_on = time.process_time()
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Spent(n_items, listed - start, went_on - told, told - listed, megabytes)


def no_model(*_: object) -> tuple:
    raise AssertionError("everything is done")


if __name__ == "__main__":
    main()
