"""Run folders at URLs: the same files as in a folder, whoever is killed, and nothing lost while the store is away.

The store is fsspec's in memory; where processes are killed it is a folder that fsspec takes for a store (`local://`).
"""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import fsspec
import pytest

from aas import registry
from aas.engine.chunks import ALL, Chunk
from aas.engine.filling import fill
from aas.engine.stage import Plan, Stage, Work
from aas.photographs import limits
from aas.store import made_of, sharding, spools
from aas.store.addresses import folder_at
from aas.store.atomic import write_text
from aas.store.heartbeats import Worker
from aas.store.objects import NotSent, Objects, StoreError
from aas.store.runs import RunFolder
from aas.store.spools import opened
from aas.store.status import status, verify
from tests import places, tiny
from tests.command import run
from tests.export_runs import write_run

NAMES = ["a.jpg", "sub/b.jpg", "run", "é.jpg", "[x]*?.jpg", "f.jpg"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "WAITS", (0.0, 0.0))
    # No time of a photograph is noted: each run writes them anew, and a busy machine takes longer than two seconds.
    monkeypatch.setattr(made_of, "FRESH_SECONDS", float("inf"))
    fsspec.filesystem("memory").store.clear()


@dataclass(frozen=True)
class Photo:
    key: str
    image: Path


class Saying(Stage[Photo, str, str]):
    """Writes of each photograph what it is called."""

    def __init__(self, run: RunFolder, made: list[str], bad: tuple[str, ...] = ()):
        self.run, self.made, self.bad = run, made, bad

    def prepare(self, item: Photo) -> str:
        if item.key in self.bad:
            raise ValueError("broken")
        return item.key

    def compute(self, batch):
        return batch

    def finish(self, item: Photo, result: str) -> None:
        self.made.append(item.key)
        item_json = {"image_id": item.key, "caption": result, "phrases": [], "pred_masks": [], "points": []}
        write_text(self.run.item_path(item.key), json.dumps(item_json | {"scores": [], "spans": []}) + "\n")


def filled(out: Path, photos: Path, chunk: Chunk = ALL, plan: Plan = Plan(), **how) -> tuple[int, list[str]]:  # noqa: B008
    """A start of a run over all photographs: its exit code, and what it made."""
    photos.mkdir(exist_ok=True)
    items = [Photo(name, photos / str(i)) for i, name in enumerate(NAMES)]
    for item in items:
        item.image.write_text(item.key)
    made: list[str] = []
    folder = RunFolder(out, ".json")
    with opened([out], out, chunk.index, chunk.count):
        work = Work(items, [], len(items)).part(chunk)
        return fill(folder, "segment gcg", {}, work, lambda _: (Saying(folder, made, **how), plan, {})), made


def objects(url: str) -> dict[str, bytes]:
    """Everything that must not depend on how a run was made."""
    system, path = fsspec.core.url_to_fs(url)
    names = system.find(path)
    found = {name.removeprefix(path).lstrip("/"): system.cat_file(name) for name in names}
    return {name: content for name, content in found.items() if name != ".made_of.jsonl"}


def in_folder(path: Path) -> dict[str, bytes]:
    found = {one.relative_to(path).as_posix(): one for one in path.rglob("*") if one.is_file()}
    return {name: one.read_bytes() for name, one in found.items() if one.name not in (".made_of.jsonl", ".lock")}


def left(tmp_path: Path) -> list[str]:
    """The files that are in spools."""
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


PLANS = [Plan(), Plan(2, n_workers=2, finishes_elsewhere=True), Plan(1, n_workers=2, by_item=True)]


@pytest.mark.parametrize("plan", PLANS)
def test_the_same_files_as_in_a_folder(tmp_path, plan):
    assert filled(tmp_path / "run", tmp_path / "photos")[0] == 0
    url = folder_at("memory://some/run")
    assert filled(url, tmp_path / "photos", plan=plan)[0] == 0
    assert objects("memory://some/run") == in_folder(tmp_path / "run") and not left(tmp_path)
    assert filled(url, tmp_path / "photos") == (0, [])
    with opened([url]):
        assert status(url) | {"total": 6, "done": 6, "waiting": 0, "workers": []} == status(url)
        assert verify(url) == [] and str(url) == "memory://some/run"
    assert not left(tmp_path)


def test_damage_is_found_and_what_is_deleted_is_made_anew(tmp_path):
    url = folder_at("memory://damage/run")
    filled(url, tmp_path / "photos")
    store = fsspec.filesystem("memory")
    store.pipe("/damage/run/f.jpg.json", store.cat("/damage/run/f.jpg.json").replace(b"f.jpg", b"g.jpg"))
    with opened([url]):
        assert [line.partition(" has")[0] for line in verify(url)] == ["memory://damage/run/f.jpg.json"]
    store.rm("/damage/run/f.jpg.json")
    assert filled(url, tmp_path / "photos") == (0, ["f.jpg"])


def test_what_failed_is_listed_there_and_taken_out_later(tmp_path):
    url = folder_at("memory://failing/run")
    assert filled(url, tmp_path / "photos", bad=("a.jpg",))[0] == 3
    assert b"broken" in objects("memory://failing/run")["failed.jsonl"]
    assert filled(url, tmp_path / "photos") == (0, ["a.jpg"])
    assert "failed.jsonl" not in objects("memory://failing/run")


@pytest.fixture
def local(tmp_path, monkeypatch) -> str:
    """A folder as a store that outlives a killed process."""
    stores = registry.PHOTOGRAPH_STORES | {"local": "aas.photographs.remote:Remote"}
    monkeypatch.setattr(registry, "PHOTOGRAPH_STORES", stores)
    monkeypatch.setitem(fsspec.config.conf, "file", {"auto_mkdir": True})
    fsspec.filesystem("file").clear_instance_cache()
    return f"local://{tmp_path}/store/run"


@pytest.mark.parametrize("n_sent", [0, 1, 3, 7])
def test_killed_before_an_object_is_there(tmp_path, local, monkeypatch, n_sent):
    """What it had written is sent by the next start, and not made again."""
    assert filled(tmp_path / "undisturbed", tmp_path / "photos")[0] == 0
    child = os.fork()
    if not child:
        kill_after(monkeypatch, n_sent)
        monkeypatch.setattr(spools, "EVERY_SECONDS", 0.01)
        filled(folder_at(local), tmp_path / "photos")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    written = {name for name in left(tmp_path) if name.endswith(".json")} - {"run.json"}
    there = {path.name for path in (tmp_path / "store" / "run").glob("*.json")} - {"run.json"}
    code, made = filled(folder_at(local), tmp_path / "photos")
    assert code == 0 and len(made) == len(NAMES) - len({name for name in written | there if "-" not in name})
    assert in_folder(tmp_path / "store" / "run") == in_folder(tmp_path / "undisturbed") and not left(tmp_path)


def kill_after(monkeypatch, n_objects: int) -> None:
    """This process, in the middle of the sending. Each object is there whole or not at all, as in a real store."""
    sent, kind = [], type(fsspec.filesystem("file"))
    real = kind.put_file

    def put(self, path, to):
        sent.append(to)
        if len(sent) > n_objects:
            os.kill(os.getpid(), signal.SIGKILL)
        to = Path(to)
        to.parent.mkdir(parents=True, exist_ok=True)
        real(self, path, f"{to.parents[1] / to.name}.half")
        os.replace(f"{to.parents[1] / to.name}.half", to)

    monkeypatch.setattr(kind, "put_file", put)


def test_while_the_store_is_away_results_wait_here(tmp_path, monkeypatch, caplog):
    url, real, is_away = folder_at("memory://away/run"), Objects.write, []

    def write(self, files):
        if is_away:
            raise StoreError(f"{self.url}: cannot be written (no route)")
        real(self, files)
        is_away.append(True)  # after the first words

    monkeypatch.setattr(Objects, "write", write)
    with pytest.raises(NotSent, match=r"cannot be written \(no route\)\. What is not there yet waits in .*away.*run:"):
        filled(url, tmp_path / "photos")
    assert "run.json" not in objects("memory://away/run") and "f.jpg.json" in left(tmp_path)
    monkeypatch.setattr(Objects, "write", real)
    assert filled(folder_at("memory://away/run"), tmp_path / "photos") == (0, [])
    assert filled(tmp_path / "run", tmp_path / "photos")[0] == 0
    found = objects("memory://away/run")
    assert {name: one for name, one in found.items() if "/" not in name} == in_folder(tmp_path / "run")
    assert not left(tmp_path)


def test_sending_goes_on_however_long_it_takes(monkeypatch):
    """Or a run that makes more than goes in the meantime would keep most of it here."""
    url, told = folder_at("memory://slow/run"), []
    monkeypatch.setattr(spools, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(spools, "_send", lambda spool, **how: time.sleep(0.2))
    with opened([url], url), spools.sending(url, lambda: told.append(time.monotonic())):
        until = time.monotonic() + 3
        while len(told) < 4 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(told) >= 4


def test_a_run_that_was_deleted_is_not_filled_by_what_was_left(tmp_path, monkeypatch):
    url = folder_at("memory://deleted/run")
    filled(url, tmp_path / "photos", bad=("f.jpg",))
    process = url.run.parent.with_name("host-99999999")
    write_text(process / "run" / "run.json", objects("memory://deleted/run")["run.json"].decode())
    write_text(process / "run" / "f.jpg.json", "of an older model\n")
    for mark in (spools.FILLING, spools.BEGUN):
        (process / mark).touch()
    fsspec.filesystem("memory").rm("/deleted", recursive=True)
    assert filled(url, tmp_path / "photos") == (0, NAMES) and not left(tmp_path)


def beat(url: str, chunk: int, num_chunks: int, told: float) -> None:
    word = asdict(Worker("elsewhere", 1, chunk, num_chunks, told - 9, told))
    fsspec.filesystem("memory").pipe(f"/{url}/.workers/elsewhere-1.json", json.dumps(word).encode())


def test_a_second_process_is_refused(tmp_path):
    beat("second/run", 0, 1, time.time())
    with pytest.raises(ValueError, match="memory://second/run is being filled by process 1 of elsewhere, part 0 of 1"):
        filled(folder_at("memory://second/run"), tmp_path / "photos")
    beat("second/run", 1, 2, time.time())
    assert filled(folder_at("memory://second/run"), tmp_path / "photos", Chunk(2, 0))[0] == 0
    with pytest.raises(ValueError, match="part 1 of 2"):
        filled(folder_at("memory://second/run"), tmp_path / "photos", Chunk(2, 1))
    beat("second/run", 0, 1, time.time() - 100)
    assert filled(folder_at("memory://second/run"), tmp_path / "photos")[0] == 0


def test_parts_of_several_machines_have_logs_of_their_own(tmp_path, local):
    """Each begins before the other has written anything; the next that is alone makes one log of theirs."""
    begin, begun = os.pipe()
    child = os.fork()
    if not child:
        with opened([folder_at(local)], folder_at(local), 1, 2):
            os.read(begin, 1)
            filled(folder_at(local), tmp_path / "photos", Chunk(2, 1), bad=("f.jpg",))
        os._exit(0)
    assert filled(folder_at(local), tmp_path / "photos", Chunk(2, 0), bad=("a.jpg",))[0] == 3
    os.write(begun, b"now")
    assert os.waitpid(child, 0)[1] == 0
    assert len(logs_of(local)) == 4
    with opened([folder_at(local)]):
        assert set(status(folder_at(local))["failed"]) == {"a.jpg", "f.jpg"} and verify(folder_at(local)) == []
    assert filled(folder_at(local), tmp_path / "photos") == (0, ["a.jpg", "f.jpg"])
    assert filled(tmp_path / "run", tmp_path / "photos")[0] == 0
    assert objects(local) == in_folder(tmp_path / "run") and logs_of(local) == [".made_of.jsonl"]


def logs_of(url: str) -> list[str]:
    system, path = fsspec.core.url_to_fs(url)
    return [Path(name).name for name in system.find(path) if name.endswith(".jsonl")]


def test_many_items_are_sent_as_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(sharding, "MOST_LOOSE", 3)
    monkeypatch.setattr("aas.engine.items.sharding.SHARD_ITEMS", 2)
    assert filled(tmp_path / "run", tmp_path / "photos")[0] == 0
    url = folder_at("memory://many/run")
    assert filled(url, tmp_path / "photos", bad=("run", "é.jpg"))[0] == 3
    assert filled(url, tmp_path / "photos")[0] == 0
    names = set(objects("memory://many/run"))
    assert names == set(in_folder(tmp_path / "run")) and "shards/000002.results.jsonl" in names
    with opened([url]):
        assert verify(url) == [] and status(url)["done"] == 6
    assert not left(tmp_path)


def test_single_items_that_were_sent_join_their_shard(tmp_path, monkeypatch):
    url = folder_at("memory://joining/run")
    filled(url, tmp_path / "photos", Chunk(2, 0))
    monkeypatch.setattr(sharding, "MOST_LOOSE", 3)
    monkeypatch.setattr(sharding, "SHARD_ITEMS", 2)
    assert filled(url, tmp_path / "photos")[0] == 0
    assert filled(tmp_path / "run", tmp_path / "photos")[0] == 0
    assert objects("memory://joining/run") == in_folder(tmp_path / "run")


def test_a_store_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    def find(*_, **__):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", find)
    assert run("status", "memory://closed/run") == (2, "aas: memory://closed/run: cannot be listed (Access Denied)\n")
    code, said = run("status", "https://host/run")
    assert code == 2 and said.startswith("aas: https://host/run: results are kept in a folder of this machine, or")
    code, said = run("export", "coco", write_run(tmp_path), "--out", "s3://bucket/coco")
    assert (code, said) == (2, "aas: s3:/bucket/coco looks like a URL, and here a folder of this machine is needed.\n")
    assert not left(tmp_path)


def test_reads_fetch_no_more_than_is_asked_for(tmp_path, monkeypatch):
    url = folder_at("memory://asked/run")
    filled(url, tmp_path / "photos")
    read = []
    monkeypatch.setattr(Objects, "read", lambda self, name, real=Objects.read: (read.append(name), real(self, name))[1])
    with opened([url]):
        assert status(url)["done"] == 6
    assert sorted(read) == [".made_of.jsonl", "run.json"]


def test_commands_on_a_url(tmp_path):
    """Results that are there are merged, verified, viewed and exported as those of a folder."""
    local_run, url = write_run(tmp_path), "memory://all/run"
    assert run("merge", local_run, url) == (0, f"{url}\n")
    assert run("verify", url)[0] == 0
    (tmp_path / "all" / "photos").mkdir(parents=True)
    code, said = run("export", "coco", url, "--images", tmp_path / "photos", "--out", tmp_path / "coco")
    assert code == 0, said
    assert run("export", "coco", local_run, "--out", tmp_path / "coco of a folder")[0] == 0
    name = "annotations.json"
    both = [next((tmp_path / one).rglob("*.json")).read_bytes() for one in ("coco", "coco of a folder")]
    assert both[0] == both[1], name


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny.saved(tiny.family("llava"), tmp_path_factory.mktemp("model")))


def test_from_photographs_to_masks(tmp_path, model):
    """Attention and masks at URLs are byte for byte those of folders."""
    photos = places.in_folder(tmp_path / "photos", places.photographs())
    asking = ("--model", model, "--images", photos, "--max-new-tokens", 4, "--workers", 0)
    for attn in (tmp_path / "attn", "memory://whole/attn"):
        assert run("infer-attn", *asking, "--out", attn)[0] == 0
    assert {name: content for name, content in objects("memory://whole/attn").items() if name != "run.json"} == {
        name: content for name, content in in_folder(tmp_path / "attn").items() if name != "run.json"
    }
    for attn, out in ((tmp_path / "attn", tmp_path / "masks"), ("memory://whole/attn", "memory://whole/masks")):
        code, said = run("segment", "gcg", "--attn", attn, "--images", photos, "--segmenter", "map", "--out", out)
        assert code == 0, said
    masks = objects("memory://whole/masks")
    assert {name: one for name, one in in_folder(tmp_path / "masks").items() if name != "run.json"} == {
        name: one for name, one in masks.items() if name != "run.json"
    }
    assert json.loads(masks["run.json"])["inputs"]["attn"] == "memory://whole/attn"
    assert run("retry", "memory://whole/masks")[0] == 0
    code, said = run("view", "memory://whole/masks")
    assert code == 0 and "memory://whole/masks/report.html" in said
    assert "report.html" in objects("memory://whole/masks") and not left(tmp_path)


def test_what_was_grounded_is_viewed(tmp_path, model):
    """Its maps lie beside it, at the URL too."""
    photos = places.in_folder(tmp_path / "photos", places.photographs())
    asking = ("--model", model, "--segmenter", "map", "--max-new-tokens", 4, "--workers", 0)
    assert run("ground", photos, *asking, "--out", "memory://grounded/run")[0] == 0
    code, said = run("view", "memory://grounded/run")
    assert code == 0, said


def test_what_is_removed_may_be_gone_already(tmp_path):
    names = [str(i) for i in range(40)]
    (tmp_path / "file").write_text("here")
    place = Objects("memory://removed/run")
    place.write(dict.fromkeys(names[::2], tmp_path / "file"))
    place.remove(names)
    assert not place.listed()
