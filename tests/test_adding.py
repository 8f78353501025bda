"""The pages about adding a dataset and a metric, followed to the letter: their files, their lines, their commands."""

import ast
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import aas.datasets
import aas.export
import aas.metrics
from aas import registry
from aas.cli import app
from tests import expression_scenes as scenes
from tests.eval_sets import write_gcg_set, write_text_encoder

DOCS = Path(__file__).parent.parent / "docs"
FILE = re.compile(r"The file: `aas/(\w+)/(\w+)\.py`\s+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
HEADING_OF_LINES = re.compile(r"The lines?: (.*) in `aas/registry.py`\n((?:\s*```python\n.*\n```\n)+)")
COMMANDS = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


def follow(page: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[str]]:
    """Write the files of a page where the rooms find them, register its lines; returns the words of its commands."""
    text = (DOCS / page).read_text(encoding="utf-8")
    for room, name, source in FILE.findall(text):
        (folder / room).mkdir(exist_ok=True)
        (folder / room / f"{name}.py").write_text(source, encoding="utf-8")
        package = getattr(aas, room)
        if str(folder / room) not in package.__path__:
            monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder / room)])
        assert f"aas.{room}.{name}" not in sys.modules, "a file of that name is there"
        monkeypatch.setitem(sys.modules, f"aas.{room}.{name}", None)  # so that it is forgotten afterwards
        del sys.modules[f"aas.{room}.{name}"]
    for tables, lines in HEADING_OF_LINES.findall(text):
        entries = re.findall(r'^(".*)$', lines, re.MULTILINE)
        for table, entry in zip(re.findall(r"`(\w+)`", tables), entries, strict=True):
            ((name, where),) = ast.literal_eval("{" + entry + "}").items()
            monkeypatch.setitem(getattr(registry, table), name, where)
    return [shlex.split(line) for block in COMMANDS.findall(text) for line in block.splitlines()]


def run(words: list[str]) -> str:
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, result.output
    return result.output


def shifted(mask: np.ndarray, by: int) -> np.ndarray:
    return np.roll(mask, by, axis=1)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with `things.json`, its photographs, and results: each mask four pixels to the right."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "masks").mkdir()
    things = []
    for scene in scenes.SCENES:
        scenes.photograph(scene).save(tmp_path / "photos" / scenes.file_name(scene))
        for thing in scene.things:
            mask, (height, width) = thing.mask(scene.size_hw), scene.size_hw
            result = {"image_id": str(len(things)), "pred_masks": [scenes.run_lengths(shifted(mask, 4))]}
            (tmp_path / "masks" / f"{len(things)}.json").write_text(json.dumps(result))
            of_image = {"image": scenes.file_name(scene), "height": height, "width": width}
            things.append(of_image | {"words": thing.name, "mask": scenes.run_lengths(mask)})
    (tmp_path / "things.json").write_text(json.dumps(things))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def expected_iou() -> float:
    masks = [thing.mask(scene.size_hw) for scene in scenes.SCENES for thing in scene.things]
    return float(np.mean([(mask & shifted(mask, 4)).sum() / (mask | shifted(mask, 4)).sum() for mask in masks]))


def test_a_dataset_is_a_file_and_a_line(here, monkeypatch):
    rows, _, _, evaluation = follow("adding-a-dataset.md", monkeypatch, here)
    run(rows)
    lines = [json.loads(line) for line in (here / "rows.jsonl").read_text().splitlines()]
    assert lines[0]["answer"] == "This image shows red box." and lines[0]["spans"] == [[17, 24]]
    assert len(lines) == 6 and lines[0]["id"] == "0"
    table = run(evaluation)
    content = json.loads((here / "scores.json").read_text())
    assert content["gIoU"] == pytest.approx(expected_iou()) and "gIoU" in table
    assert len((here / "masks.csv").read_text().splitlines()) == 7
    assert "things" in run(["aas", "list", "datasets"])
    assert "one mask for each name" in run(["aas", "eval", "things", "--help"])
    assert "one mask for each name" in run(["aas", "expressions", "--help"])
    template = CliRunner().invoke(app, [*evaluation[1:], "--say", "{expression}"])
    assert template.exit_code == 2 and "No such option" in template.output, "how rows are written is nothing to eval"


def test_what_an_entry_lacks_costs_no_other(here, monkeypatch):
    rows, *_ = follow("adding-a-dataset.md", monkeypatch, here)
    things = json.loads((here / "things.json").read_text())
    del things[1]["words"]
    (here / "things.json").write_text(json.dumps(things))
    result = CliRunner().invoke(app, rows[1:])
    assert result.exit_code == 3 and "entry 1: it has no 'words'" in result.output
    assert len((here / "rows.jsonl").read_text().splitlines()) == 5
    wrong = CliRunner().invoke(app, [*rows[1:], "--say", "no place"])
    assert wrong.exit_code == 2 and "--say" in wrong.output


def test_masks_that_are_no_masks_of_the_phrases_are_told(here, monkeypatch):
    """Of a reader that gives more masks than phrases."""
    *_, evaluation = follow("adding-a-dataset.md", monkeypatch, here)
    source = here / "datasets/things.py"
    source.write_text(source.read_text().replace("return [Target(mask_of(mask, height, width))]",
                      "return [Target(mask_of(mask, height, width))] * (1 + (height == 64))"))  # fmt: skip
    result = CliRunner().invoke(app, evaluation[1:])
    content = json.loads((here / "scores.json").read_text())
    assert result.exit_code == 3 and content["counts"]["unusable"] == 1
    assert content["reported"]["unusable"] == ["5: the dataset has 2 masks for 1 phrases"]


def test_a_metric_of_masks_is_a_file_and_a_line(here, monkeypatch):
    follow("adding-a-dataset.md", monkeypatch, here)
    listing, evaluation = follow("adding-a-metric.md", monkeypatch, here)
    assert "boxes" in run(listing)
    run([*evaluation, "--json", "scores.json"])
    content = json.loads((here / "scores.json").read_text())
    assert content["box@0.5"] == 1 and content["settings"]["metrics"] == ["referring", "boxes"]
    assert content["gIoU"] == pytest.approx(expected_iou()) and "box@0.5" in content["intervals"]
    for path in list((here / "masks").iterdir())[:3]:
        path.unlink()
    assert CliRunner().invoke(app, [*evaluation[1:], "--json", "half.json"]).exit_code == 3
    assert json.loads((here / "half.json").read_text())["box@0.5"] == 0.5
    compared = run(["aas", "eval", "compare", "half.json", "scores.json"])
    assert "box@0.5" in compared
    unknown = CliRunner().invoke(app, [*evaluation[1:], "--metric", "none"])
    assert unknown.exit_code == 2 and "Known: boxes, narratives, referring" in unknown.output


def test_a_metric_of_captions_is_a_file_and_two_lines(tmp_path, monkeypatch):
    follow("adding-a-metric.md", monkeypatch, tmp_path)
    monkeypatch.setattr("aas.metrics.captions.java_works", lambda: False)
    paths = write_gcg_set(tmp_path / "set", seed=1, n_images=5)
    options = [word for name, path in paths.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    options += ["--text-encoder", str(write_text_encoder(tmp_path / "encoder")), "--bootstrap", "20"]
    table = run(["aas", "eval", "gcg", *options, "--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")])
    content = json.loads((tmp_path / "a.json").read_text())
    references = json.loads(paths["gt_caption"].read_text())["annotations"]
    found = said = 0
    for entry in references:
        words = json.loads((paths["results"] / f"{entry['image_id']}.json").read_text())["caption"].split()
        found += sum(word in entry["caption"].strip(".").split() for word in words)
        said += len(words)
    assert content["strict"]["precision"] == pytest.approx(found / said) and "precision" in table
    low, high = content["intervals"]["strict"]["precision"]
    assert low <= found / said <= high
    assert "captions_precision" in (tmp_path / "a.csv").read_text().splitlines()[0]
