"""Shards: the same items in fewer files, whoever wrote them, in whatever order and however often it was killed."""

import json
import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import RLock

import numpy as np
import pytest
from safetensors.numpy import load_file
from tqdm import tqdm

from aas.engine.chunks import ALL, Chunk
from aas.engine.filling import fill
from aas.engine.items import chunk_of, groups_of
from aas.engine.stage import Plan, Stage, Work
from aas.records import Answer, AttentionMaps, View
from aas.store import made_of, sharding
from aas.store.attention import AttentionItem, read_item, write_item
from aas.store.combine import combine
from aas.store.keys import quoted
from aas.store.runs import RunFolder
from aas.store.sharding import shard, unshard
from aas.store.shards import content_of, shards_of
from aas.store.status import status, verify

SHARD = 4
ONE = Plan()
NAMES = [f"{name}.jpg" for name in ("a", "b/c", "run", ".d", "été", "f" * 300, "%", *map(str, range(10, 20)))]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Shards of few items, in runs of few."""
    monkeypatch.setattr(sharding, "MOST_LOOSE", 6)
    monkeypatch.setattr(sharding, "SHARD_ITEMS", SHARD)
    monkeypatch.setattr(made_of, "FRESH_SECONDS", -1e9)  # photographs are older in life


def attention(name: str) -> AttentionItem:
    """Of an odd number of tokens, so that not every item ends where the next may begin."""
    chance = np.random.default_rng(len(name))
    maps = chance.random((3, 1, 3), np.float32)
    answer = Answer("what?", f"about {name}"[:20], (1, 2, 3), ((0, 1), (1, 2), (2, 5)))
    return AttentionItem(name, (9, 9), answer, AttentionMaps(maps, View((1, 3), (0.0, 0.0, 9.0, 9.0), "image")))


@dataclass(frozen=True)
class Photo:
    key: str
    image: Path


class Writing(Stage[Photo, Photo, AttentionItem]):
    """Writes an item of each photograph; fails at some."""

    def __init__(self, out: Path, bad: tuple[str, ...] = (), seconds: float = 0.0):
        self.run, self.bad, self.seconds = RunFolder(out, ".safetensors"), bad, seconds

    def prepare(self, item: Photo) -> Photo:
        if item.key in self.bad:
            raise ValueError("broken")
        return item

    def compute(self, batch):
        time.sleep(self.seconds)
        return [attention(one.key) for one in batch]

    def finish(self, item: Photo, result: AttentionItem) -> None:
        write_item(self.run.item_path(item.key), result)


def work(photos: Path, chunk: Chunk = ALL) -> Work[Photo]:
    photos.mkdir(exist_ok=True)
    items = [Photo(name, photos / quoted(name)) for name in NAMES]
    for item in items:
        if not item.image.exists():
            item.image.write_text(item.key)
    return Work(items, [], len(items)).part(chunk)


def filled(out: Path, chunk: Chunk = ALL, plan: Plan = ONE, **how) -> int:
    """A start of a run over all photographs."""
    made = RunFolder(out, ".safetensors")
    return fill(made, "infer-attn", {}, work(out.parent / "photos", chunk), lambda _: (Writing(out, **how), plan, {}))


def files(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how a run was made: of notes not the times."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    kept = {name: path.read_bytes() for name, path in found.items() if not name.endswith(".lock")}
    return {name: timeless(content) if name.endswith(".jsonl") else content for name, content in kept.items()}


def timeless(lines: bytes) -> bytes:
    notes = [json.loads(line) for line in lines.splitlines()]
    told = [{key: one if isinstance(one, str) else one[0] for key, one in note.items()} for note in notes]
    return json.dumps(told).encode()


def test_a_run_of_many_items_ends_in_shards(tmp_path: Path):
    out = tmp_path / "run"
    assert filled(out) == 0
    made = RunFolder(out, ".safetensors")
    assert not made.loose() and set(made.items()) == {*NAMES} - {NAMES[5]} | {quoted(NAMES[5])}
    for name in NAMES:
        assert made.is_done(name)
        assert read_item(made.item_path(name)).answer == attention(name).answer
        write_item(tmp_path / "alone", attention(name))
        assert content_of(made.item_path(name)) == (tmp_path / "alone").read_bytes()
    assert shards_of(out).numbers() == list(range(5)) and verify(out) == []
    assert status(out) | {"total": 17, "done": 17, "waiting": 0} == status(out)
    tensors = load_file(shards_of(out).file(0, ".safetensors"))
    assert (tensors["a.jpg.safetensors/maps"] == attention("a.jpg").attention.maps).all()
    before = files(out)
    assert filled(out) == 0 and files(out) == before


@pytest.mark.parametrize("plan", [Plan(3, n_workers=2, finishes_elsewhere=True), Plan(1, n_workers=2, by_item=True)])
def test_shards_do_not_depend_on_who_filled_them(tmp_path: Path, plan: Plan):
    assert filled(tmp_path / "one") == 0
    for index in (2, 0, 1):
        assert filled(tmp_path / "some", Chunk(3, index), plan) == 0
    assert files(tmp_path / "some") == files(tmp_path / "one")


def test_what_goes_into_a_shard_is_noted_once(tmp_path: Path):
    """By the shard; until then, what it is made of."""
    out = tmp_path / "run"
    assert filled(out, Chunk(3, 0)) == 0
    made = RunFolder(out, ".safetensors")
    notes = made.made_of.notes()
    assert made.loose() and all(set(notes.of(name)) == {"item", "photograph"} for name in made.loose())
    assert filled(out, Chunk(3, 1)) == filled(out, Chunk(3, 2)) == 0 and not made.loose()
    notes = made.made_of.notes()
    assert not notes.own and all(set(notes.of(name)) == {"item", "photograph", "result"} for name in notes)


def test_killed_at_any_moment_and_gone_on_with(tmp_path: Path, monkeypatch):
    assert filled(tmp_path / "undisturbed") == 0
    chance, out, kills = random.Random(0), tmp_path / "killed", 0
    while kills < 12:
        count = chance.choice((1, 2, 3))
        child = os.fork()
        if not child:
            tqdm.set_lock(RLock())  # its own: that of all processes would stay locked where this one is killed
            slow_down(monkeypatch)
            for index in chance.sample(range(count), count):
                filled(out, Chunk(count, index), seconds=0.002)
            os._exit(0)
        time.sleep(chance.uniform(0, 0.25))
        os.kill(child, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0
        if len(RunFolder(out, ".safetensors").items() if out.is_dir() else ()) == len(NAMES):
            shutil.rmtree(out)
    assert filled(out) == 0
    assert files(out) == files(tmp_path / "undisturbed") and verify(out) == []


def slow_down(monkeypatch) -> None:
    """More kills hit while a shard is written, before its index is, and before its items' files are gone."""
    for place, name in ((sharding, "write_text"), (sharding, "_line"), (Path, "unlink")):
        real = getattr(place, name)
        slow = lambda *given, real=real, **named: (time.sleep(0.002), real(*given, **named))[1]  # noqa: E731
        monkeypatch.setattr(place, name, slow)


def test_what_failed_joins_its_shard_later(tmp_path: Path):
    assert filled(tmp_path / "whole") == 0
    out = tmp_path / "run"
    assert filled(out, bad=("a.jpg", "15.jpg")) == 3
    assert not RunFolder(out, ".safetensors").loose() and status(out)["done"] == 15
    assert set(RunFolder(out, ".safetensors").failures()) == {"a.jpg", "15.jpg"}
    assert filled(out) == 0 and files(out) == files(tmp_path / "whole")


def test_into_shards_and_back(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(sharding, "MOST_LOOSE", 100)
    out = tmp_path / "run"
    assert filled(out) == 0
    before = files(out)
    assert shard(out) == (17, []) and not RunFolder(out, ".safetensors").loose() and verify(out) == []
    assert filled(out) == 0, "it goes on"
    assert unshard(out) == (17, []) and not (out / "shards").exists()
    after = files(out)
    assert {name: after[name] for name in after if name != ".made_of.jsonl"} == {
        name: before[name] for name in before if name != ".made_of.jsonl"
    }
    assert verify(out) == [] and filled(out) == 0
    (out.parent / "photos/a.jpg").write_text("another")
    with pytest.raises(ValueError, match=r"photograph of a\.jpg"):
        filled(out)


def test_another_photograph_is_noticed_in_a_shard(tmp_path: Path):
    out = tmp_path / "run"
    assert filled(out) == 0
    (tmp_path / "photos/15.jpg").write_text("another")
    with pytest.raises(ValueError, match=r"photograph of 15.jpg.*`aas shard --back .*/run` first"):
        filled(out)


def test_what_is_damaged_is_named_and_stays_out(tmp_path: Path):
    out = tmp_path / "run"
    assert filled(out) == 0
    data = shards_of(out).file(1, ".safetensors")
    content = bytearray(data.read_bytes())
    content[-7] ^= 1  # in the last item's maps
    data.write_bytes(content)
    (wrong,) = verify(out)
    assert "has other bytes than were written" in wrong
    data.write_bytes(content[:-9])
    assert len(verify(out)) == 1
    data.write_bytes(content[:40])
    assert len(verify(out)) == SHARD and all(str(data) in line for line in verify(out))
    n_items, wrong = unshard(out)
    assert n_items == 17 - SHARD and len(wrong) == 1 and str(shards_of(out).index(1)) in wrong[0]
    shards_of(out).index(1).unlink()
    assert filled(out) == 0 and verify(out) == []
    loose = tmp_path / "loose"
    shutil.copytree(out, loose)
    unshard(loose)
    (loose / "a.jpg.safetensors").write_bytes(b"no item")
    assert shard(loose) == (16, ["a.jpg.safetensors"]) and RunFolder(loose, ".safetensors").loose() == {
        "a.jpg.safetensors"
    }


def test_merged(tmp_path: Path, monkeypatch):
    assert filled(tmp_path / "whole") == 0
    here, there, out = (tmp_path / name for name in ("here", "there", "out"))
    for index, folder in enumerate((here, there)):
        assert filled(folder, Chunk(2, index)) == 0
    shard(here)
    combine([here, there], out)
    made = RunFolder(out, ".safetensors")
    assert set(made.items()) == set(RunFolder(tmp_path / "whole", ".safetensors").items()) and not made.loose()
    assert verify(out) == [] and filled(out) == 0
    unshard(here)
    (here / "a.jpg.safetensors").write_bytes((here / "15.jpg.safetensors").read_bytes())
    with pytest.raises(ValueError, match="different results"):
        combine([here, out], tmp_path / "new")


def test_chunks_take_whole_shards_where_each_gets_several():
    items = [Photo(str(i), Path(f"{i // 3}")) for i in range(200)]
    groups = groups_of(items)
    assert all(SHARD <= len(group) <= SHARD + 2 for group in groups[:-1])
    assert [item for group in groups for item in group] == items
    for count in (1, 2, 4, 9):
        parts = [chunk_of(items, count, index, groups) for index in range(count)]
        assert sorted((item for part in parts for item in part), key=items.index) == items
        assert len({item.image for part in parts for item in part}) == sum(len({i.image for i in p}) for p in parts)
    for part in (chunk_of(items, 4, index, groups) for index in range(4)):
        assert not [group for group in groups if 0 < len({*group} & {*part}) < len(group)]
    assert groups_of(items[:6]) == [] and not any(a == b for a, b in pairwise(groups))
