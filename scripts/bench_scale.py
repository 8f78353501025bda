"""What a run folder of many items costs: to list it, to go on with it, to tell its status; per item, and in memory.

    python scripts/bench_scale.py --items 1000 10000 100000 --out work/scale

The items are empty, as are their photographs: only the store's own share is measured, each number of items in a process
of its own. The last column is the time per item of going on, as a multiple of the first row's.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from aas.store.runs import RunFolder
from aas.store.status import status


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
    first = 0.0
    for n_items in options.items:
        filled(options.out, n_items)
        command = [sys.executable, __file__, "--measure", "--items", str(n_items), "--out", str(options.out)]
        spent = Spent(**json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
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


def filled(folder: Path, n_items: int) -> None:
    """A run folder in which everything is done."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "photos").mkdir(parents=True)
    description = {"command": "infer-attn", "arguments": {}, "n_images": n_items}
    (folder / "run.json").write_text(json.dumps(description))
    with (folder / ".made_of.jsonl").open("w") as notes:
        for i in range(n_items):
            photo, item = folder / f"photos/{i}.jpg", folder / f"{i}.jpg.safetensors"
            photo.touch(), item.touch()
            os.utime(photo, (0, 0))
            found = photo.stat()
            stamp = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
            notes.write(json.dumps({"item": item.name, "photograph": ["0" * 64, stamp]}) + "\n")
            notes.write(json.dumps({"item": item.name, "result": ["0" * 64, None]}) + "\n")


def measured(folder: Path, n_items: int) -> Spent:
    run = RunFolder(folder, ".safetensors")
    keys = [f"{i}.jpg" for i in range(n_items)]
    start = time.process_time()
    assert len(run.items()) == n_items
    listed = time.process_time()
    time.sleep(3)  # files that are younger than two seconds are read, not looked at
    going_on = time.process_time()
    run.begin("infer-attn", {}, {})
    run.check_files({key: {"photograph": folder / "photos" / key} for key in keys})
    assert len(run.done_of(keys)) == n_items
    went_on = time.process_time()
    assert status(folder)["done"] == n_items
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Spent(n_items, listed - start, went_on - going_on, time.process_time() - went_on, megabytes)


if __name__ == "__main__":
    main()
