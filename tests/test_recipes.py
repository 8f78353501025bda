"""docs/recipes.md, followed to the letter: its files, its commands, its Python, in one folder from top to bottom."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools.coco import COCO
from skimage import data

from aas.metrics import captions
from tests.command import run

PAGE = (Path(__file__).parent.parent / "docs/recipes.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = ("chelsea", "coffee")
TURNS = {"mirrored": ImageOps.mirror, "flipped": ImageOps.flip, "negative": ImageOps.invert}


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with `photos/`, where the recipes are followed."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "photos").mkdir()
    for name in NAMES:
        photograph(name).save(folder / f"photos/{name}.jpg")
    return folder


def photograph(name: str) -> Image.Image:
    found = Image.fromarray(getattr(data, name)())
    found.thumbnail((240, 240))
    return found


@pytest.fixture
def follow(here, monkeypatch) -> Callable[[str], dict[str, Any]]:
    """Follows the recipe of a heading; returns the names of its last Python block, and the commands' exit codes."""
    monkeypatch.chdir(here)

    def follow(heading: str) -> dict[str, Any]:
        names: dict[str, Any] = {"codes": []}
        for language, text in BLOCK.findall(PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]):
            if language == "text":
                Path("classes.txt").write_text(text)
            elif language == "python":
                exec(compile(text, heading, "exec"), names)
            else:
                names["codes"] += [run(*shlex.split(line)[1:]) for line in text.splitlines()]
        return names

    return follow


def test_a_folder_is_labelled_for_yolo(follow):
    assert [code for code, _ in follow("Auto-label a folder for YOLO")["codes"]] == [0, 0]
    assert "cat" in Path("yolo/data.yaml").read_text() and Path("yolo/unmapped.tsv").is_file()
    assert any(label.read_text() for label in Path("yolo/labels").rglob("*.txt"))


def test_captions_of_others_are_grounded(follow):
    assert [code for code, _ in follow("Ground GPT's captions")["codes"]] == [0, 0]
    rows = list(map(json.loads, Path("dataset/metadata.jsonl").read_text().splitlines()))
    assert [row["phrases"] for row in rows] == [["a cat", "a cup", "a person"]] * len(NAMES)


def test_heads_are_looked_at(follow, here):
    rows = [{"image": f"{name}.jpg", "answer": "a cat"} for name in NAMES]
    for turn, turned in TURNS.items():
        for name in NAMES:
            turned(photograph(name)).save(here / f"photos/{name}-{turn}.jpg")
            rows.append({"image": f"{name}-{turn}.jpg", "answer": "a cup and a cat"})
    Path("captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = follow("Which heads look?")
    (ground, _), (view, _), (calibrate, said) = names["codes"]
    assert (ground, view) == (0, 0) and "heads:1.0" in Path("by-head/report.html").read_text()
    assert calibrate == 0 or (calibrate == 1 and "no heads that look" in said)
    gains = names["gains"]
    assert gains.ndim == 2 and np.isfinite(gains).all() and gains[names["best"][0]] == gains.max() > 1


def test_a_model_looks_twice(follow, monkeypatch):
    monkeypatch.setattr(captions, "java_works", lambda: False)  # a second for each start; the words are the same
    assert [code for code, _ in follow("Let a model look twice")["codes"]] == [0, 0]
    figures = json.loads(Path("thought.json").read_text())["figures"]["all"]
    assert all(0 <= figures[name] <= 1 for name in ("exact_match", "ROUGE_L", "box_IoU"))


def test_tags_are_grounded(follow):
    assert [code for code, _ in follow("Ground with my own classes")["codes"]] == [0, 0]
    coco = COCO("coco/annotations.json")
    assert len(coco.getImgIds()) == 2 and {one["name"] for one in coco.cats.values()} == {
        "cat",
        "cup",
        "spoon",
        "table",
    }
