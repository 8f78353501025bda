"""SIGTERM and SIGUSR1 finish the batch and say so by the exit code; a second one ends at once; nobody stays behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from aas.engine.stopping import CODE
from aas.store.atomic import PART, sweep, written
from tests.test_behaviour_resume import is_running

ROOT = Path(__file__).parent.parent
N_ITEMS = 40
RUN = """
import sys, time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from aas.cli.look import show_messages
from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.store.atomic import write_text
from aas.store.runs import RunFolder

out, photo, way, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
show_messages(False, False)
device = "slow" if seconds else "fast"

@dataclass(frozen=True)
class Item:
    key: str
    image: Path = photo

class Slow(Stage):
    def prepare(self, item):
        return item
    def compute(self, batch):
        time.sleep(seconds)
        return batch
    def finish(self, item, result):
        write_text(out / f"{item.key}.json", "{}")

plans = {"here": Plan(4), "workers": Plan(4, 2, True), "by item": Plan(1, 2, by_item=True)}
items = [Item(f"{i:02}") for i in range(NUMBER)]
if way == "processes":
    from tests.told import Number
    items = [Number(item.key, photo) for item in items]
work = Work(items, [], NUMBER)
if way == "processes":
    from aas.engine.processes import Processes
    from tests.told import load
    sys.exit(fill(RunFolder(out, ".json"), "slow", {}, work, partial(load, out, {}), engine=Processes([device] * 2)))
sys.exit(fill(RunFolder(out, ".json"), "slow", {}, work, lambda _device: (Slow(), plans[way], {})))
""".replace("NUMBER", str(N_ITEMS))


def started(folder: Path, way: str, seconds: float) -> tuple[subprocess.Popen, list[str]]:
    photo = folder / "photo.png"
    Image.new("RGB", (4, 4)).save(photo)
    command = [sys.executable, "-c", RUN, str(folder / "run"), str(photo), way, str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(results(folder)) >= 2)
    return process, command


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run").glob("[0-9]*.json"))


def wait_for(what) -> None:
    end = time.monotonic() + 60
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    assert what()


def children(group: int) -> list[int]:
    """Running processes of a group, which is named by the process that began it."""
    found = subprocess.run(["ps", "-eo", "pid,pgid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    pairs = zip(map(int, found[::2]), map(int, found[1::2]), strict=True)
    return [pid for pid, of in pairs if of == group and is_running(pid)]


@pytest.mark.parametrize(
    ("way", "number"),
    [("here", signal.SIGTERM), ("workers", signal.SIGUSR1), ("by item", signal.SIGTERM), ("processes", signal.SIGTERM)],
)
def test_the_batch_is_finished_and_the_same_command_goes_on(tmp_path: Path, way: str, number: int):
    """Also where the signal is sent to all processes, as schedulers do."""
    process, command = started(tmp_path, way, 0.2)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == CODE, said
    assert "finishing the batch" in said and "goes on from here" in said and "Traceback" not in said
    there = results(tmp_path)
    assert 2 <= len(there) < N_ITEMS and (way == "by item" or len(there) % (2 if way == "processes" else 4) == 0)
    wait_for(lambda: not children(process.pid))
    command[-1] = "0"
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"{N_ITEMS - len(there)} done, {len(there)} were there, 0 failed" in again.stderr
    assert len(results(tmp_path)) == N_ITEMS


def test_a_second_one_ends_at_once(tmp_path: Path):
    process, _ = started(tmp_path, "workers", 3.0)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    start = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == CODE and "Traceback" not in said and time.monotonic() - start < 3.5
    wait_for(lambda: not children(process.pid))


def test_a_killed_worker_is_one_line(tmp_path: Path):
    """Of processes that prepare; the run ends, since nobody knows which of them had what."""
    process, _ = started(tmp_path, "by item", 0.2)
    worker = next(pid for pid in children(process.pid) if pid != process.pid)
    os.kill(worker, signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "ChildProcessError: a worker process was killed" in said


def test_what_killed_writers_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path):
    (tmp_path / f".left{PART}").write_text("half")
    with written(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
