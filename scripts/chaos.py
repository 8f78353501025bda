"""Kill runs at random moments, resume them with other numbers of chunks, and compare with undisturbed runs.

    python scripts/chaos.py --kills 100 --out work/chaos

Prints a line of a Markdown table for each command: its kills, and whether any item was lost, left over or other than
the undisturbed run's at batch size 1. Exit code 1 where one was. The runs are forked from this process, which has
imported everything: a start takes as long as it takes to load the models.
"""

import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import RLock

from PIL import Image
from tqdm import tqdm

from aas.cli import app
from aas.stages import ground, infer_attn, segment  # noqa: F401  (imported once, for all that are forked)
from aas.store import sharding

WHOLE = 0.5  # of the kills, so many are of the whole process group; the others of one process of it
MOST_SECONDS = 6.0  # until a kill that waits for nothing
SLOWER = 10  # so many times, where a cluster is started first
LONGEST_SECONDS = 600.0  # of a start: afterwards it hangs
RESULTS = (".json", ".safetensors", ".png", ".results.jsonl")
INDEX = ".index.jsonl"  # of a shard
COMMANDS = {
    "infer-attn": "infer-attn --images {photos} --out {out} --max-new-tokens 12",
    "segment": "segment gcg --attn {attn} --images {photos} --out {out}",
    "ground": "ground {photos} --out {out} --max-new-tokens 12",
    "infer-attn --gpus cpu,cpu": "infer-attn --images {photos} --out {out} --max-new-tokens 12 --gpus cpu,cpu",
    "infer-attn --engine ray": "infer-attn --images {photos} --out {out} --max-new-tokens 12 --device cpu "
    "--engine ray --actors 1:2",  # on a cluster that the run begins for itself: Ray's own processes are killed too
}


def main() -> int:
    options = arguments()
    if options.shard_items:
        sharding.MOST_LOOSE, sharding.SHARD_ITEMS = 0, options.shard_items
    chance = random.Random(options.seed)
    photos = photographs(options.out / "photos", options.images)
    places = {"photos": photos, "attn": options.out / "attn"}
    if any("{attn}" in COMMANDS[name] for name in options.commands):
        undisturbed(filled("infer-attn", places, places["attn"]))
    print("| command | images | kills | starts | lost or other | left over |\n|---|---|---|---|---|---|", flush=True)
    wrong = 0
    for name in options.commands:
        reference, out = options.out / f"{name} undisturbed", options.out / name
        undisturbed(filled(name.split(" --")[0], places, reference))
        kills, starts = disturbed(filled(name, places, out), options.kills, chance, out)
        others, left = different(reference, out), left_over(reference, out)
        wrong += len(others) + len(left)
        print(f"| `{name}` | {options.images} | {kills} | {starts} | {shown(others)} | {shown(left)} |", flush=True)
    return 1 if wrong else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25, help="of each command")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--shard-items", type=int, help="let all runs keep so many items in a shard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("work/chaos"), help="emptied first")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    return options


def photographs(folder: Path, number: int) -> Path:
    """Small pictures, each another."""
    folder.mkdir(parents=True)
    chance = random.Random(0)
    for i in range(number):
        colours = bytes(chance.randrange(256) for _ in range(8 * 8 * 3))
        Image.frombytes("RGB", (8, 8), colours).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i:03}.png")
    return folder


# ---------------------------------------------------------------------------------------------------------- runs


def filled(name: str, places: dict[str, Path], out: Path) -> str:
    """The command of that name, with its folders."""
    return COMMANDS[name].format_map({place: shlex.quote(str(path)) for place, path in {**places, "out": out}.items()})


def started(command: str, log: Path) -> int:
    """A process group of its own that carries out an `aas` command; its id."""
    process = os.fork()
    if process:
        return process
    os.setsid()
    tqdm.set_lock(RLock())  # its own: that of all processes would stay locked where this one is killed
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    code = 1
    try:
        app(shlex.split(command))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


def undisturbed(command: str) -> None:
    """The same at batch size 1, in one go."""
    log = Path(os.devnull)
    _, status = os.waitpid(started(f"{command} --batch-size 1 --workers 0", log), 0)
    if status:
        raise SystemExit(f"the undisturbed run failed ({status}): aas {command}")


def disturbed(command: str, n_kills: int, chance: random.Random, out: Path) -> tuple[int, int]:
    """Start it until it is done, with `n_kills` kills on the way; the kills and the starts that there were."""
    kills = starts = 0
    while True:
        part = f"--batch-size 1 --workers {chance.choice((0, 1, 2))}" + chunk(chance)
        process = started(f"{command} {part}", out.with_name("log"))
        starts += 1
        if kills < n_kills:
            wait_for_a_moment(process, out, chance, MOST_SECONDS * (SLOWER if "--engine ray" in command else 1))
            kills += kill(process, chance)
        code = ended(process)
        if kills < n_kills and code == 0:
            make_anew(out, chance)
        if kills >= n_kills and code == 0 and "--num-chunks 1" in part:
            return kills, starts


def make_anew(out: Path, chance: random.Random) -> None:
    """Take half of the items, or shards, away, where all are there before the last kill."""
    there = sorted(name for name in every_file(out) if name.endswith(INDEX)) or sorted(results(out))
    for name in chance.sample(there, len(there) // 2):
        (out / name).unlink()


def wait_for_a_moment(process: int, out: Path, chance: random.Random, most_seconds: float) -> None:
    """Half of the moments are any, as models are loaded too; half are soon after a file has appeared."""
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, most_seconds))
        return
    before, until = number_of_files(out), time.monotonic() + 10 * most_seconds
    while number_of_files(out) == before and members(process) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(chance.uniform(0, 1))


def number_of_files(folder: Path) -> int:
    return len(every_file(folder))


def chunk(chance: random.Random) -> str:
    count = chance.choice((1, 1, 2, 3))
    return f" --num-chunks {count} --chunk-idx {chance.randrange(count)}"


def kill(group: int, chance: random.Random) -> int:
    """How many were killed: 0 where it was done already."""
    there = members(group)
    if not there:
        return 0
    if chance.random() < WHOLE:
        os.killpg(group, signal.SIGKILL)
    else:
        os.kill(chance.choice(there), signal.SIGKILL)
    return 1


def ended(process: int) -> int:
    """The exit code; an error where it or one of its processes does not end."""
    until = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        time.sleep(0.05)
    while members(process):
        if time.monotonic() > until:
            raise SystemExit(f"processes of group {process} do not end: {members(process)}")
        time.sleep(0.1)
    return os.waitstatus_to_exitcode(status)


def members(group: int) -> list[int]:
    """Processes of a group that are no zombies, and of groups that it made: of Ray's actors each has one."""
    lines = subprocess.run(["ps", "-eo", "pid=,sess=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return [int(pid) for pid, of, state in rows if int(of) == group and not state.startswith("Z")]


# ------------------------------------------------------------------------------------------------------- results


def results(folder: Path) -> dict[str, bytes]:
    names = [name for name in every_file(folder) if name.endswith(RESULTS) and not name.startswith(".")]
    return {name: (folder / name).read_bytes() for name in names if name != "run.json"}


def every_file(folder: Path) -> list[str]:
    """Of a folder and those in it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def different(reference: Path, out: Path) -> list[str]:
    expected, found = results(reference), results(out)
    return [name for name in expected if found.get(name) != expected[name]]


def left_over(reference: Path, out: Path) -> list[str]:
    """Files that the undisturbed run has not: halves, results that nobody asked for."""
    return sorted({*every_file(out)} - {*every_file(reference)})


def shown(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "none"


if __name__ == "__main__":
    sys.exit(main())
