"""Images/s against the number of workers, in each way that `aas` offers them, and the store's share of an image.

    python scripts/bench_workers.py --workers 1 2 3 4 --out work/workers

The embedded models do small pictures on this machine's processor, each process on one core. Each way is measured with
1, 2, ... workers, all ways in turn, `--rounds` times, and the best round counts; the second figure is the multiple of
the first column's. Starts are left out: images/s are those of the middle half of the results, by the times of their
files. The store's share is what a run takes for results that are there already, whose bytes are written again: it looks
at the photograph, notes what the item is made of and what was written, and counts it. It is in seconds of the
processor, beside what one worker takes for an image in all.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: else the first worker has all cores

from chaos import photographs, started

from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.store.atomic import write_bytes
from aas.store.runs import RunFolder

INFER = "infer-attn --images {photos} --max-new-tokens 6 --batch-size 1 "
SEGMENT, GROUND = "segment gcg --attn {attn} --images {photos} ", "ground {photos} --max-new-tokens 6 "
WAYS = {  # {n} workers, {devices} for them; a way that names {part} is a process for each part
    "infer-attn --num-chunks": INFER + "--workers 0 --num-chunks {n} --chunk-idx {part}",
    "infer-attn --gpus": INFER + "--workers 0 --gpus {devices}",
    "segment --workers": SEGMENT + "--workers {n}",
    "ground --workers": GROUND + "--workers {n}",
    "segment --gpus": SEGMENT + "--workers 0 --gpus {devices}",
    "infer-attn --engine ray --actors": INFER + "--workers 0 --device cpu --engine ray --actors {n}",
}
USUAL = list(WAYS)[:3]  # the others take longer to start: only where they are asked for
REPEATS = 5
SUFFIXES = {"infer-attn": ".safetensors", "segment": ".json", "ground": ".json"}


def main() -> None:
    options = arguments()
    shutil.rmtree(options.out, ignore_errors=True)
    places = {"photos": photographs(options.out / "photos", options.images), "attn": options.out / "attn"}
    if any("{attn}" in WAYS[way] for way in options.ways):
        carried_out(INFER + "--workers 0", 1, places, places["attn"])
    speeds: dict[tuple[str, int], float] = {}
    for _ in range(options.rounds):
        for n in options.workers:
            for way in options.ways:
                out = options.out / f"{way} {n}"
                shutil.rmtree(out, ignore_errors=True)
                carried_out(WAYS[way], n, places, out)
                speed = images_per_second(out, SUFFIXES[way.split()[0]])
                print(f"{way} {n}: {speed:.2f} images/s", file=sys.stderr, flush=True)
                speeds[way, n] = max(speeds.get((way, n), 0.0), speed)
    report(speeds, options.ways, options.workers)
    for way in {way.split()[0]: way for way in options.ways}.values():  # one of each command
        n, suffix = options.workers[0], SUFFIXES[way.split()[0]]
        spent = store_seconds(options.out / f"{way} {n}", suffix, places["photos"])
        print(f"store, {way.split()[0]}: {1000 * spent:.2f} ms an image, {100 * spent * speeds[way, n] / n:.1f} %")
    shutil.rmtree(options.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=USUAL)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("work/workers"), help="emptied first")
    return parser.parse_args()


def carried_out(command: str, n: int, places: dict[str, Path], out: Path) -> None:
    """Start the process, or those of all parts; SystemExit where one fails."""
    names = {**places, "n": n, "devices": ",".join(["cpu"] * n)}
    parts = [command.format_map({**names, "part": part}) for part in range(n if "{part}" in command else 1)]
    processes = [started(f"{part} --out '{out}'", Path(os.devnull)) for part in parts]
    failed = [os.waitpid(process, 0)[1] for process in processes]
    if any(failed):
        raise SystemExit(f"it failed ({failed}): aas {parts[0]}")


def images_per_second(out: Path, suffix: str) -> float:
    """Of the middle half of the results."""
    ends = sorted(path.stat().st_mtime for path in out.glob(f"[0-9]*{suffix}"))
    first, last = len(ends) // 4, 3 * len(ends) // 4
    return (last - first) / (ends[last] - ends[first])


def report(speeds: dict[tuple[str, int], float], ways: Sequence[str], workers: Sequence[int]) -> None:
    print("| images/s |" + "".join(f" {n} |" for n in workers) + "\n|---|" + "---|" * len(workers))
    for way in ways:
        cells = (f" {speeds[way, n]:.2f}, {speeds[way, n] / speeds[way, workers[0]]:.2f} |" for n in workers)
        print(f"| `{way}` |" + "".join(cells), flush=True)


# --------------------------------------------------------------------------------------------- the store's share


@dataclass(frozen=True)
class Photo:
    """An item: a photograph and its key."""

    key: str
    image: Path


@dataclass(frozen=True)
class There(Stage[Photo, bytes, bytes]):
    """Nothing is computed: the bytes of each result are there."""

    run: RunFolder
    results: dict[str, bytes]

    def prepare(self, item: Photo) -> bytes:
        return self.results[item.key]

    def compute(self, batch: Sequence[bytes]) -> Sequence[bytes]:
        return batch

    def finish(self, item: Photo, result: bytes) -> None:
        write_bytes(self.run.item_path(item.key), result)


def store_seconds(out: Path, suffix: str, photos: Path) -> float:
    """What each of the results in `out` takes to be written again, in seconds of the processor."""
    items = RunFolder(out, suffix).items()
    results = {key: path.read_bytes() for key, path in items.items()}
    again = RunFolder(out.with_name(f"{out.name} again"), suffix)
    work = Work([Photo(key, photos / f"{key[:3]}.png") for key in items], [], len(items))
    start = time.process_time()
    for _ in range(REPEATS):
        shutil.rmtree(again.path, ignore_errors=True)
        assert fill(again, "bench", {}, work, lambda _: (There(again, results), Plan(), {})) == 0
    return (time.process_time() - start) / REPEATS / len(items)


if __name__ == "__main__":
    main()
