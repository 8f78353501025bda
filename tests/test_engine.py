"""One loop for every stage: what is done already, batches, halving, one failure, and results that cannot be written."""

import errno
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from aas.engine import workers
from aas.engine.filling import fill
from aas.engine.items import chunk_of
from aas.engine.local import carry_out
from aas.engine.stage import Plan, Stage, Work
from aas.images import ImageError
from aas.store import made_of
from aas.store.runs import RunFolder

PLANS = {
    "here": Plan(1),
    "batches": Plan(4),
    "workers": Plan(3, n_workers=2),
    "finishing elsewhere": Plan(3, n_workers=1, finishes_elsewhere=True),
    "by item": Plan(1, n_workers=2, by_item=True),
}


@dataclass(frozen=True)
class Number:
    key: str
    image: Path = Path("photo.jpg")


@dataclass(frozen=True)
class Thing:
    """A tensor inside a dataclass inside a tuple: it goes through a pipe and comes back as it was."""

    value: torch.Tensor


class Doubling(Stage[Number, tuple[Thing, int], float]):
    """Numbers to their doubles, in files; some of them are trouble, of which `trouble` says what kind."""

    def __init__(self, out: Path, trouble: dict[str, str] | None = None, memory: int = 100):
        self.run, self.trouble, self.memory = RunFolder(out, ".json"), trouble or {}, memory
        self.sizes: list[int] = []

    def prepare(self, item):
        if self.trouble.get(item.key) == "unreadable":
            raise ImageError(f"{item.image}: broken")
        return Thing(torch.tensor(float(item.key))), int(item.key)

    def compute(self, batch):
        self.sizes.append(len(batch))
        if len(batch) > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for _, number in batch:
            if self.trouble.get(str(number)) == "uncomputable":
                raise RuntimeError("no answer")
        assert all(type(thing.value) is torch.Tensor for thing, _ in batch)
        return [2 * float(thing.value) for thing, _ in batch]

    def finish(self, item, result):
        match self.trouble.get(item.key):
            case "unwritable":
                raise OSError(errno.ENAMETOOLONG, "File name too long")
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
        self.run.item_path(item.key).write_text(str(result))


NUMBERS = [Number(str(i)) for i in range(10)]


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_each_item_fails_alone(tmp_path, plan):
    trouble = {"1": "unreadable", "4": "uncomputable", "7": "unwritable"}
    stage = Doubling(tmp_path, trouble)
    outcomes = {item.key: reason for item, reason in carry_out(stage, NUMBERS, plan)}
    failed = {key: reason for key, reason in outcomes.items() if reason}
    assert set(outcomes) == {item.key for item in NUMBERS} and set(failed) == set(trouble)
    assert failed["1"] == "photo.jpg: broken" and failed["4"] == "photo.jpg: RuntimeError: no answer"
    assert "File name too long" in failed["7"] and failed["7"].startswith("photo.jpg")
    there = {path.stem: float(path.read_text()) for path in tmp_path.glob("*.json")}
    assert there == {str(i): 2.0 * i for i in range(10) if str(i) not in trouble}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_full_disk_ends_the_run(tmp_path, plan):
    with pytest.raises(OSError, match="No space left"):
        list(carry_out(Doubling(tmp_path, {"3": "full"}), NUMBERS, plan))


@pytest.mark.parametrize("plan", [Plan(1), Plan(4), PLANS["finishing elsewhere"]])
def test_a_folder_that_vanishes_ends_the_run(tmp_path, plan):
    """As a network's does: where it was is an empty folder then, in which nothing is to begin."""
    mounted, away = tmp_path / "mounted", tmp_path / "away"
    run, work = RunFolder(mounted / "run", ".json"), Work(NUMBERS, [], 10)

    def vanish(item):
        if not away.exists():
            mounted.rename(away)
            mounted.mkdir()

    mounted.mkdir()
    with pytest.raises(OSError, match="the run folder is gone"):
        fill(run, "double", {}, work, lambda _: (Doubling(run.path), plan, {}), vanish)
    assert not list(mounted.rglob("[0-9]*.json"))
    shutil.rmtree(mounted)  # who finishes elsewhere may just have been about to note an item
    away.rename(mounted)
    assert 0 < run.n_done() < 10 and not run.failures()
    assert fill(run, "double", {}, work, lambda _: (Doubling(run.path), plan, {})) == 0 and run.n_done() == 10


def test_a_folder_that_vanishes_while_an_item_is_read_is_not_made_anew(tmp_path, monkeypatch):
    run = RunFolder(tmp_path / "run", ".json")
    run.begin("double", {}, {})
    monkeypatch.setattr(made_of, "_told", lambda files: shutil.rmtree(run.path) or {})
    with pytest.raises(OSError, match="the run folder is gone"):
        run.note_result("0")
    assert not run.path.exists()


def test_batches_are_halved_and_stay_small(tmp_path):
    stage = Doubling(tmp_path, memory=2)
    assert all(reason is None for _, reason in carry_out(stage, NUMBERS, Plan(8)))
    assert stage.sizes == [8, 4, 2, 2, 2, 2, 2]


def test_items_of_like_length_share_a_batch(tmp_path):
    seen = []

    class ByParity(Doubling):
        window_batches = 5

        def length(self, prepared):
            return prepared[1] % 2

        def compute(self, batch):
            seen.append([number for _, number in batch])
            return super().compute(batch)

    assert all(reason is None for _, reason in carry_out(ByParity(tmp_path), NUMBERS, Plan(2)))
    assert seen == [[0, 2], [4, 6], [8, 1], [3, 5], [7, 9]]


def test_a_run_goes_on_and_forgets_what_failed(tmp_path):
    loaded = []

    def begin(trouble):
        def load(_device):
            loaded.append(1)
            return Doubling(tmp_path, trouble), Plan(4), {"versions": "some"}

        return load

    work, news = Work(NUMBERS, [("gone", "gone: no such thing")], 11), []
    asked = {"seed": 1}
    assert fill(RunFolder(tmp_path, ".json"), "double", asked, work, begin({"2": "uncomputable"}), news.append) == 3
    run = RunFolder(tmp_path, ".json")
    assert set(run.failures()) == {"2", "gone"} and len(news) == 9
    assert fill(run, "double", asked, Work(NUMBERS, [], 10), begin({}), news.append) == 0
    assert run.failures() == {} and [item.key for item in news[9:]] == ["2"]
    assert fill(run, "double", asked, Work(NUMBERS, [], 10), begin({}), news.append) == 0
    assert len(loaded) == 2, "with nothing to do, no model is loaded"
    with pytest.raises(ValueError, match="seed was 1 and is now 2"):
        fill(run, "double", {"seed": 2}, work, begin({}))


def test_a_chunk_knows_only_its_own(tmp_path):
    """What other chunks did and failed at stays; jobs of one photograph stay together."""
    jobs = [Number(str(i), Path(f"{i // 2}.jpg")) for i in range(10)]
    chunks = [chunk_of(jobs, 3, i) for i in range(3)]
    assert sorted(int(job.key) for chunk in chunks for job in chunk) == list(range(10))
    assert [[job.key for job in chunk] for chunk in chunks] == [list("0167"), list("2389"), list("45")]
    run = RunFolder(tmp_path, ".json")
    for chunk in chunks:
        load = lambda _device: (Doubling(tmp_path, {"3": "uncomputable"}), Plan(2), {})  # noqa: E731
        fill(run, "double", {}, Work(chunk, [], 10, is_whole=False), load)
    assert set(run.failures()) == {"3"} and len(run.items()) == 9
    run.fail("0", "another chunk's")
    mended = Work(chunks[1], [], 10, is_whole=False)
    assert fill(run, "double", {}, mended, lambda _device: (Doubling(tmp_path), Plan(2), {})) == 0
    (line,) = run.failed_path.read_text().splitlines()
    assert "another chunk's" in line and len(run.items()) == 10


def test_tensors_go_through_pipes_as_arrays(tmp_path):
    entry = {"a": (Thing(torch.arange(3)), [torch.ones(2)]), "b": np.zeros(2), "c": "words"}
    packed = workers._packed(entry)
    assert not isinstance(packed["a"][0].value, torch.Tensor)
    back = workers._unpacked(packed)
    assert torch.equal(back["a"][0].value, torch.arange(3)) and torch.equal(back["a"][1][0], torch.ones(2))
    assert isinstance(back["b"], np.ndarray) and back["c"] == "words"


def test_an_item_has_one_thread_wherever_it_is_done(tmp_path):
    """Else the bytes of a result would depend on how many others there are."""
    seen = []

    class Counting(Doubling):
        def compute(self, batch):
            seen.append(torch.get_num_threads())
            return super().compute(batch)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert all(reason is None for _, reason in carry_out(Counting(tmp_path), NUMBERS, Plan(by_item=True)))
        assert torch.get_num_threads() == 2 and seen == [1] * len(NUMBERS)
    finally:
        torch.set_num_threads(before)


def test_few_results_wait_for_the_process_that_finishes(tmp_path):
    """Results hold photographs and masks: a slow disk must not fill the memory."""

    class Slow(Doubling):
        def finish(self, item, result):
            time.sleep(0.003)
            super().finish(item, result)

    numbers = [Number(str(i)) for i in range(3 * workers.MAX_WAITING)]
    with workers.Finishing(Slow(tmp_path), elsewhere=True) as finishing:
        done = []
        for i, number in enumerate(numbers):
            done += finishing.finish(number, float(i))
            assert len(finishing.waiting) <= workers.MAX_WAITING
        done += finishing.rest()
    assert [number for number, failure in done if failure is None] == numbers
