"""One process for each device over one queue: nothing is lost, a slow one holds nobody up, who dies is replaced."""

from functools import partial
from multiprocessing import active_children
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from typer.testing import CliRunner

from aas.cli import app
from aas.engine.filling import fill
from aas.engine.ledger import MOST_DEATHS, Ledger
from aas.engine.processes import Processes
from aas.engine.stage import Work
from aas.store.addresses import folder_at
from aas.store.runs import RunFolder
from aas.store.spools import opened
from tests import tiny
from tests.told import NUMBERS, load


def filled(out: Path, devices: list[str], trouble: dict[str, str] | None = None) -> int:
    loading = partial(load, out, trouble or {})
    return fill(RunFolder(out, ".json"), "tell", {}, Work(NUMBERS, [], 24), loading, engine=Processes(devices))


def test_a_slow_one_takes_fewer_items(tmp_path: Path):
    assert filled(tmp_path, ["slow", "fast"]) == 0
    who = [path.read_text().strip('"').split()[0] for path in tmp_path.glob("[0-9]*.json")]
    assert len(who) == 24 and 0 < who.count("slow") < 12
    assert filled(tmp_path, ["broken"]) == 0, "all is done: nobody is started"


def test_an_item_that_kills_its_process_is_given_up_and_no_other_is_lost(tmp_path: Path):
    trouble = {"05": "kill", "06": "raise"}
    assert filled(tmp_path, ["a", "b"], trouble) == 3
    failures = RunFolder(tmp_path, ".json").failures()
    assert set(failures) == set(trouble) and len(list(tmp_path.glob("[0-9]*.json"))) == 24 - 2
    assert "given up" in failures["05"] and failures["06"] == "photo.jpg: RuntimeError: no answer"
    assert filled(tmp_path, ["a", "b"]) == 0, "at the next start it is tried again"


def test_what_ends_a_run(tmp_path: Path):
    with pytest.raises(ValueError, match="no such device"):
        filled(tmp_path, ["broken"])
    with pytest.raises(ChildProcessError, match="while they load the models"):
        filled(tmp_path, ["killed"])
    assert not (tmp_path / "run.json").exists()


def test_processes_end_where_their_outcomes_cannot_be_told(tmp_path: Path):
    """As where stderr is a pipe that nobody reads any more: nobody waits for anybody then."""

    def done(item):
        raise BrokenPipeError("nobody reads")

    loading = partial(load, tmp_path, {})
    before = set(active_children())
    with pytest.raises(BrokenPipeError):
        fill(
            RunFolder(tmp_path, ".json"), "tell", {}, Work(NUMBERS, [], 24), loading, done, engine=Processes(["a", "b"])
        )
    assert set(active_children()) == before


def test_a_suspect_is_alone_with_its_worker():
    ledger = Ledger(NUMBERS[:4])
    first = [ledger.next_for("a") for _ in range(3)]
    assert ledger.done("a", first[0].key) == first[0]
    assert ledger.died("a") == []
    assert ledger.next_for("b") == NUMBERS[3], "what is new comes first"
    assert ledger.next_for("b") is None, "a suspect waits until it has nothing else"
    ledger.done("b", NUMBERS[3].key)
    suspects = {}
    for worker in "bc":
        suspects[worker] = ledger.next_for(worker)
        assert ledger.next_for(worker) is None
    ledger.done("c", suspects["c"].key)
    worker = "b"
    for n in range(2, MOST_DEATHS):
        assert ledger.died(worker) == []
        worker = f"after {n}"
        assert ledger.next_for(worker) == suspects["b"]
    assert ledger.died(worker) == [suspects["b"]] and not ledger.is_open


def test_the_command_gives_the_same_bytes(tmp_path: Path):
    photos = tiny.photographs(tmp_path / "photos", [(40, 40)] * 5)
    model = tiny.saved(tiny.family("llava"), tmp_path / "model")
    command = ["infer-attn", "--images", photos, "--model", model, "--max-new-tokens", 2, "--batch-size", 1, "--out"]
    for out, more in (("one", ()), ("two", ("--gpus", "cpu", "--workers", 1))):
        result = CliRunner().invoke(app, list(map(str, [*command, tmp_path / out, *more])))
        assert result.exit_code == 0 and "5 done" in result.output, result.output
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / out).glob("*.safetensors")} for out in ("one", "two"))
    assert one == two and len(one) == 5


def test_processes_over_one_queue_fill_a_run_at_a_url(tmp_path: Path, monkeypatch):
    """They write into the folder that is sent from; this process sends."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = folder_at("memory://queue/run")
    with opened([url], url):
        assert filled(url, ["a", "b"], {"05": "kill"}) == 3
    there = {Path(name).name for name in fsspec.filesystem("memory").find("/queue/run")}
    assert {f"{i:02}.json" for i in range(24) if i != 5} | {"run.json", "failed.jsonl", ".made_of.jsonl"} == there
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.parametrize("words", [["--gpus", "7"], ["--gpus", "all"], ["--gpus", "0", "--device", "cpu"]])
def test_gpus_that_are_not_there(tmp_path: Path, words: list[str], monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    result = CliRunner().invoke(app, ["infer-attn", "--images", str(tmp_path), "--out", str(tmp_path / "run"), *words])
    assert result.exit_code == 2 and "--gpus" in result.output and not (tmp_path / "run").exists()
