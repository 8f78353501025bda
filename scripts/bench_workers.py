"""Images a second against workers, processor time of an image, and the store's share of it, with the embedded LMM.

    python scripts/bench_workers.py --workers 1 2 4 --images 4 36 --out work/workers

Each row is the difference of two runs, of few and of many images, so that loading is not in it. On a machine that has
other things to do only the processor's time tells anything.
"""

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.store.atomic import write_bytes
from aas.store.runs import RunFolder

SIZE_WH = (640, 480)
ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of prctl: the time of a process whose parent has ended is told to us
ASKED = "--max-new-tokens 12 --batch-size 1 --gpus cpu --workers-per-gpu"


@dataclass(frozen=True)
class Photo:
    """An item."""

    key: str
    image: Path


class Storing(Stage[Photo, None, None]):
    """All that a stage does but its models: it writes what was written of each image before."""

    def __init__(self, run: RunFolder, items: dict[str, bytes]):
        self.run, self.items = run, items

    def prepare(self, item: Photo) -> None:
        return None

    def compute(self, batch):
        return batch

    def finish(self, item: Photo, result: None) -> None:
        write_bytes(self.run.item_path(item.key), self.items[item.key])


def main() -> None:
    options = arguments()
    ctypes.CDLL(None).prctl(ADOPT_ORPHANS, 1, 0, 0, 0)
    folders = [photographs(options.out / f"{number} photos", number) for number in options.images]
    n_more = options.images[1] - options.images[0]
    print("| workers | images/s | processor time of an image |\n|---|---|---|", flush=True)
    for workers in options.workers:
        (few_wall, few_cpu), (wall, cpu) = (spent(folder, workers) for folder in folders)
        print(
            f"| {workers} | {n_more / (wall - few_wall):.2f} | {1000 * (cpu - few_cpu) / n_more:.0f} ms |", flush=True
        )
    print(f"the store's share of an image: {1000 * storing(folders[1]):.2f} ms of the processor")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, nargs=2, default=[4, 36], help="few, and many")
    parser.add_argument("--out", type=Path, default=Path("work/workers"), help="emptied first")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    return options


def photographs(folder: Path, number: int) -> Path:
    """Small pictures made large, each another."""
    folder.mkdir(parents=True)
    for i in range(number):
        small = Image.effect_noise((16, 12), 60 + i).convert("RGB")
        small.resize(SIZE_WH, Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg")
    return folder


def spent(photos: Path, workers: int) -> tuple[float, float]:
    """Seconds of the clock and of the processor, of a whole command with all its processes."""
    run = photos.with_name(f"{photos.name} run")
    shutil.rmtree(run, ignore_errors=True)
    command = [sys.executable, "-m", "aas.cli", "-q", "infer-attn", "--images", photos, "--out", run]
    start, wall, seconds = time.monotonic(), 0.0, 0.0
    process = subprocess.Popen([*map(str, command), *ASKED.split(), str(workers)])
    while True:
        try:
            ended, status, used = os.wait4(-1, 0)
        except ChildProcessError:
            return wall, seconds
        seconds += used.ru_utime + used.ru_stime
        if ended == process.pid:
            process.returncode, wall = os.waitstatus_to_exitcode(status), time.monotonic() - start
            assert process.returncode == 0


def storing(photos: Path) -> float:
    """Seconds of the processor for each item, of the loop and the store alone."""
    run, again = photos.with_name(f"{photos.name} run"), RunFolder(photos.with_name("again"), ".safetensors")
    items = {path.name.removesuffix(".safetensors"): path.read_bytes() for path in run.glob("*.safetensors")}
    work = Work([Photo(name, photos / name) for name in sorted(items)], [], len(items))
    start = time.process_time()
    assert fill(again, "store", {}, work, lambda _: (Storing(again, items), Plan(), {})) == 0
    return (time.process_time() - start) / len(items)


if __name__ == "__main__":
    main()
