"""SIGTERM and SIGUSR1 finish the batch and say so by the exit code; a second one ends at once; nobody stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from aas.cli.look import show_messages
from aas.engine.filling import fill
from aas.engine.processes import Processes
from aas.engine.stage import Plan, Stage, Work
from aas.engine.stopping import CODE
from aas.store.atomic import PART, sweep, write_text, written
from aas.store.runs import RunFolder
from tests.command import Forked
from tests.test_behaviour_resume import is_running
from tests.told import Number, load

N_ITEMS = 40


class Slow(Stage):
    def __init__(self, out: Path, seconds: float):
        self.out, self.seconds = out, seconds

    def prepare(self, item):
        return item

    def compute(self, batch):
        time.sleep(self.seconds)
        return batch

    def finish(self, item, result):
        write_text(self.out / f"{item.key}.json", "{}")


PLANS = {"here": Plan(4), "workers": Plan(4, 2, True), "by item": Plan(1, 2, by_item=True)}


def filled(out: Path, photo: Path, way: str, seconds: float) -> None:
    """What a command does, to its exit code."""
    show_messages(False, False)
    items = [Number(f"{i:02}", photo) for i in range(N_ITEMS)]
    device, stage, engine = "slow" if seconds else "fast", lambda _device: (Slow(out, seconds), PLANS[way], {}), None
    if way == "processes":
        stage, engine = partial(load, out, {}), Processes([device] * 2)
    sys.exit(fill(RunFolder(out, ".json"), "slow", {}, Work(items, [], N_ITEMS), stage, engine=engine))


def begun(folder: Path, way: str, seconds: float) -> Forked:
    photo = folder / "photo.png"
    Image.new("RGB", (4, 4)).save(photo)
    return Forked(partial(filled, folder / "run", photo, way, seconds))


@contextmanager
def under_way(folder: Path, way: str, seconds: float) -> Iterator[Forked]:
    with begun(folder, way, seconds) as process:
        wait_for(lambda: len(results(folder)) >= 2)
        yield process


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
    with under_way(tmp_path, way, 0.2) as process:
        os.killpg(process.pid, number)
        code, _, said = process.ended(60)
    assert code == CODE, said
    assert "finishing the batch" in said and "goes on from here" in said and "Traceback" not in said
    there = results(tmp_path)
    assert 2 <= len(there) < N_ITEMS
    if way == "processes":
        # One that waits for the second item of its batch, when there are to be no more, does the one that it has: all
        # that were handed out are there.
        assert there == [f"{i:02}.json" for i in range(len(there))]
    else:
        assert way == "by item" or len(there) % 4 == 0
    wait_for(lambda: not children(process.pid))
    with begun(tmp_path, way, 0) as process:
        code, _, said = process.ended(60)
    assert code == 0 and f"{N_ITEMS - len(there)} done, {len(there)} were there, 0 failed" in said
    assert len(results(tmp_path)) == N_ITEMS


def test_a_second_one_ends_at_once(tmp_path: Path):
    with under_way(tmp_path, "workers", 3.0) as process:
        for _ in range(2):
            os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.3)
        start = time.monotonic()
        code, _, said = process.ended(60)
    assert code == CODE and "Traceback" not in said and time.monotonic() - start < 3.5
    wait_for(lambda: not children(process.pid))


def test_a_killed_worker_is_one_line(tmp_path: Path):
    """Of processes that prepare; the run ends, since nobody knows which of them had what."""
    with under_way(tmp_path, "by item", 0.2) as process:
        worker = next(pid for pid in children(process.pid) if pid != process.pid)
        os.kill(worker, signal.SIGKILL)
        code, _, said = process.ended(60)
    assert code == 1 and "ChildProcessError: a worker process was killed" in said


def test_what_killed_writers_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path):
    (tmp_path / f".left{PART}").write_text("half")
    with written(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
        sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
