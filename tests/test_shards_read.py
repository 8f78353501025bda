"""Every command that reads a run reads its shards, and says the same as of files."""

import json
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from aas.datasets.grandf import read_answers, read_truth
from aas.datasets.instances import _entries
from aas.grounding import Grounding
from aas.store import sharding
from aas.store.combine import combine
from aas.store.instances import InstanceResult, write_instances
from aas.store.merge import merge
from aas.store.readers import READERS
from aas.store.runs import RunFolder
from aas.store.shards import content_of, shards_of
from tests import tiny
from tests.command import run
from tests.eval_sets import write_gcg_set


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """`files/NAME` and `shards/NAME`: the same runs of `infer-attn`, `segment gcg` and `ground`."""
    folder = tmp_path_factory.mktemp("runs")
    files, photos = folder / "files", folder / "photos"
    photos.mkdir()
    for i, name in enumerate(("a.bmp", "b.bmp", "c.bmp")):
        Image.fromarray(tiny.a_photo((48, 64), seed=i)).save(photos / name)
    few = ("--max-new-tokens", 3, "--workers", 0, "--out")
    assert run("infer-attn", "--images", photos, *few, files / "attn")[0] == 0
    assert run("segment", "gcg", "--attn", files / "attn", "--images", photos, "--out", files / "masks")[0] == 0
    assert run("ground", photos, *few, files / "grounded")[0] == 0
    shutil.copytree(files, folder / "shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SHARD_ITEMS", 2)
        for name in ("attn", "masks", "grounded"):
            assert run("shard", folder / "shards" / name)[0] == 0
    return folder


def test_files_are_in_shards_as_they_were(runs: Path):
    for name, suffix in (("attn", ".safetensors"), ("masks", ".json"), ("grounded", ".json")):
        files, shards = (RunFolder(runs / kind / name, suffix) for kind in ("files", "shards"))
        assert not shards.loose() and shards_of(shards.path).numbers() == [0, 1]
        assert shards.items().keys() == files.items().keys()
        for file, item in zip(files.items().values(), shards.items().values(), strict=True):
            assert content_of(item) == file.read_bytes() and not item.exists()
            READERS[shards.description()["command"]](item)
    item, file = runs / "shards/grounded/a.json", runs / "files/grounded/a.json"
    assert Grounding.load(item).item() == Grounding.load(file).item()
    assert (Grounding.load(item).token_maps == Grounding.load(file).token_maps).all()
    line, *_ = shards_of(item.parent).file(0, ".json").read_text().splitlines()
    assert json.loads(line) == {"item": "a.json", "result": json.loads(file.read_text())}


COMMANDS = (
    "status {masks} --json",
    "verify {grounded}",
    "verify {attn}",
    "view {masks} --no-open --out {out}.html",
    "view {grounded} --no-open --out {out}.html",
    "show masks {masks} --out {out}",
    "show attn {attn} --out {out}",
    "export coco {masks} --out {out}",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_say_the_same(runs: Path, tmp_path: Path, command: str):
    said = {}
    for kind in ("files", "shards"):
        places = {name: runs / kind / name for name in ("attn", "masks", "grounded")} | {"out": tmp_path / kind}
        code, output = run(*command.format_map(places).split())
        assert code == 0, output
        made = [path for path in tmp_path.rglob("*") if path.is_file() and kind in str(path.relative_to(tmp_path))]
        said[kind] = re.sub(r".*it/s|.*\d+%.*", "", output).replace(kind, ""), len(made)
    assert said["files"] == said["shards"] and (said["files"][1] > 0) == ("{out}" in command)


def test_runs_of_shards_go_on(runs: Path, tmp_path: Path):
    """Also where the attention that masks were made of is in shards since."""
    shutil.copytree(runs / "files/masks", tmp_path / "masks")
    attn, photos = runs / "shards/attn", runs / "photos"
    for out, made in ((tmp_path / "masks", runs / "files/attn"), (runs / "shards/masks", attn)):
        code, output = run("segment", "gcg", "--attn", made, "--images", photos, "--out", out)
        assert code == 0 and "0 done, 3 were there" in output
    code, output = run("segment", "gcg", "--attn", attn, "--images", photos, "--out", tmp_path / "new")
    assert code == 0 and "3 done" in output
    for file in (runs / "files/masks").glob("[abc].json"):
        assert (tmp_path / "new" / file.name).read_bytes() == file.read_bytes()
    code, output = run("ground", photos, "--max-new-tokens", 3, "--out", runs / "shards/grounded")
    assert code == 0 and "0 done, 3 were there" in output and (runs / "shards/grounded/report.html").is_file()


def test_evaluations_of_shards(tmp_path: Path):
    paths = write_gcg_set(tmp_path, seed=3, n_images=5)
    truth = read_truth(paths["gt_caption"], paths["gt_mask"], {})
    for path in paths["results"].iterdir():
        path.write_text(path.read_text() + "\n")
    before = read_answers(paths["results"], truth, {})
    RunFolder(paths["results"], ".json").begin("segment gcg", {}, {})
    assert sharding.shard(paths["results"]) == (5, []) and not list(paths["results"].glob("[0-9]*.json"))
    after = read_answers(paths["results"], truth, {})
    assert repr(after) == repr(before) and len(after) == 5


def test_instances_in_shards_are_merged(tmp_path: Path):
    made = RunFolder(tmp_path / "run", ".json")
    made.begin("segment instance", {}, {"n_images": 3})
    for number in (1, 2, 3):
        write_instances(made.item_path(str(number)), InstanceResult(number, f"image {number}", ()))
    expected = merge(made.path).read_bytes()
    sharding.shard(made.path)
    (made.path / "results.json").unlink()
    assert _entries(made.path, {}) == [] and merge(made.path).read_bytes() == expected
    combine([made.path], tmp_path / "other")
    assert merge(tmp_path / "other").read_bytes() == expected
