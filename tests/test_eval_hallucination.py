"""`aas eval hallucination`: which phrases are judged, and its figures against their definitions."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from typer.testing import CliRunner

from aas import rle
from aas.cli import app
from aas.records import Phrase
from aas.store.results import result_of, write_result
from aas.store.runs import RunFolder

MASK = rle.of_mask(np.ones((4, 4), bool))
SAID = {  # photograph -> its answer, and of each phrase its confidence and token probability
    "a": ("A cat with a dog near a tree.", {"A cat": (0.9, 0.5), "a dog": (0.3, 0.6), "a tree": (0.1, 0.1)}),
    "b": ("A big dog and a bus.", {"A big dog": (0.7, 0.2), "a bus": (0.7, 0.1)}),
    "c": ("A bus.", {"A bus": (0.6, 0.9)}),
}
THERE = {"a": ["cat"], "b": ["dog"], "c": []}
JUDGED = {("a", "A cat"): True, ("a", "a dog"): False, ("b", "A big dog"): True, ("b", "a bus"): False,
          ("c", "A bus"): True}  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    run = RunFolder(tmp_path / "grounded", ".json")
    run.path.mkdir()
    for name, (caption, phrases) in SAID.items():
        spans = [(caption.index(words), caption.index(words) + len(words)) for words in phrases]
        found = [Phrase(words, span, span, (0,)) for words, span in zip(phrases, spans, strict=True)]
        confidences, likely = zip(*phrases.values(), strict=True)
        columns = {"confidences": confidences, "token_probabilities": likely, "confidence_kind": "uncalibrated"}
        n = len(found)
        result = result_of(found, [MASK] * n, [(0, 0)] * n, [0.5] * n, image_id=name, caption=caption, **columns)
        write_result(run.item_path(name), result)
    names = {name: i for i, name in enumerate(["cat", "dog", "bus"], start=1)}
    annotations = [
        {
            "id": i + 1,
            "image_id": list(THERE).index(image),
            "category_id": names[name],
            "segmentation": MASK,
            "area": 16,
        }
        for i, (image, name) in enumerate((image, name) for image, some in THERE.items() for name in some)
    ]
    images = [{"id": i, "file_name": f"{name}.jpg", "height": 4, "width": 4} for i, name in enumerate(THERE)]
    categories = [{"id": i, "name": name} for name, i in names.items()]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    captions = [
        {"id": 1, "image_id": 2, "caption": "An old bus\n in town."},
        {"id": 2, "image_id": 9, "caption": "A cat."},
    ]
    (tmp_path / "captions.json").write_text(json.dumps({"annotations": captions}))
    return tmp_path


def evaluated(folder: Path, *more: object):
    words = ("eval", "hallucination", "--results", folder / "grounded", "--gt", folder / "gt.json", *more)
    return CliRunner().invoke(app, list(map(str, words)))


def test_figures(folder):
    result = evaluated(folder, "--captions", folder / "captions.json", "--json", folder / "out.json", "--bootstrap", 50)
    assert result.exit_code == 0, result.output
    content = json.loads((folder / "out.json").read_text())
    cases = {("abc"[one["image"]], one["phrase"]): one["is_there"] for one in content["cases"]}
    assert cases == JUDGED, "a tree is no category, and a caption's bus is there"
    there = np.array(list(JUDGED.values()))
    for i, name in enumerate(("confidences", "token_probabilities")):
        values = np.array([SAID[image][1][words][i] for image, words in JUDGED])
        figures = content["figures"][name]
        pairs = mannwhitneyu(values[there], values[~there]).statistic
        assert figures["AUC"] == pytest.approx(pairs / (there.sum() * (~there).sum()))
        assert figures["mean"] == pytest.approx(values.mean())
        assert figures["Brier"] == pytest.approx(((values - there) ** 2).mean())
    gain = content["differences"]["token_probabilities"]["AUC"]["difference"]
    assert gain == pytest.approx(content["figures"]["confidences"]["AUC"] - figures["AUC"])
    assert (
        "5 phrases of 3 answers name a category; of them 0.600 are there. Confidence is uncalibrated." in result.output
    )


def test_without_captions_a_bus_is_made_up(folder):
    assert evaluated(folder, "--json", folder / "out.json").exit_code == 0
    assert json.loads((folder / "out.json").read_text())["counts"]["there"] == 2


def test_what_cannot_be_measured_is_said(folder):
    for path in (folder / "grounded").glob("[bc].json"):
        path.unlink()
    (folder / "grounded/a.json").write_text(
        json.dumps(json.loads((folder / "grounded/a.json").read_text()) | {"phrases": []})
    )
    result = evaluated(folder)
    assert result.exit_code == 2 and "no result with confidences" in result.output
