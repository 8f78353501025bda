"""`aas eval yesno`: its figures against their definitions, and the command on a tiny model that says yes and no."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import mannwhitneyu
from typer.testing import CliRunner

from aas.capture import CaptureError
from aas.cli import app
from aas.datasets.yes_no import Question, read_questions
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.yes_no import first_words
from aas.metrics import bootstrap
from aas.metrics.yes_no import yes_no
from tests import tiny
from tests.tiny.llava import lmm as tiny_llava

INSTRUCTION = "Answer the question using a single word or phrase."
POPE = Path("data/coco_text/pope.jsonl")


def opinionated() -> LMM:
    """A model whose first word is yes, no or a Q, each of some questions."""
    lmm = tiny_llava()
    generator = torch.Generator().manual_seed(8)
    head = lmm.model.lm_head.weight.data.zero_()
    says, other = torch.randn(2, head.shape[1], generator=generator)
    for token, row in {"y": says, "Y": says / 2, "n": -says, "N": -says / 2, "Q": other}.items():
        head[lmm.tokenizer.convert_tokens_to_ids(token)] = row
    return lmm


# ---- figures -----------------------------------------------------------------------------------------


@pytest.fixture
def answered() -> dict[str, np.ndarray]:
    """60 questions about 9 of 10 images; log-odds with equal values."""
    drawn = np.random.default_rng(0)
    said = np.array([True, False, None], object)[drawn.choice(3, 60, p=(0.5, 0.4, 0.1))]
    labels = [bool(one) for one in drawn.random(60) < 0.5]
    return {"labels": labels, "said": said, "log_odds": drawn.normal(size=60).round(1), "images": np.arange(60) % 9}


def by_hand(labels, said, log_odds) -> dict[str, float]:
    right = sum(a == b for a, b in zip(labels, said, strict=True))
    hits = sum(a and b is True for a, b in zip(labels, said, strict=True))
    n_yes, n_true = sum(one is True for one in said), sum(labels)
    precision, recall = hits / n_yes, hits / n_true
    true = np.array(labels, bool)
    pairs = mannwhitneyu(log_odds[true], log_odds[~true]).statistic
    return {
        "accuracy": right / len(said),
        "precision": precision,
        "recall": recall,
        "F1": 2 * precision * recall / (precision + recall),
        "yes_ratio": n_yes / len(said),
        "unreadable": sum(one is None for one in said) / len(said),
        "AUC": pairs / (n_true * (len(labels) - n_true)),
    }


def test_figures_are_their_definitions_in_every_resample(answered):
    evidence = yes_no(**answered, n_images=10)
    weights = bootstrap.resamples(10, 5, seed=1)
    figures = bootstrap.figures(json.loads(json.dumps(evidence)), weights)
    for i, times in enumerate(weights.astype(int)):
        drawn = np.repeat(np.arange(60), times[answered["images"]])  # a question for each time that its image is drawn
        labels = [answered["labels"][k] for k in drawn]
        expected = by_hand(labels, answered["said"][drawn], answered["log_odds"][drawn])
        assert {name: values[i] for name, values in figures.items()} == pytest.approx(expected, abs=1e-12)


def test_nothing_to_average_is_no_number():
    figures = bootstrap.figures(yes_no([False], [None], [0.3], [0], 2), np.ones((1, 2)))
    assert {name for name, values in figures.items() if np.isnan(values[0])} == {"precision", "recall", "F1", "AUC"}
    assert figures["unreadable"] == 1 and figures["accuracy"] == 0


# ---- questions ---------------------------------------------------------------------------------------


def test_real_lines_are_read(shared_dir):
    questions = read_questions(shared_dir / POPE)
    assert len(questions) == 756 and sum(one.is_yes for one in questions) == 378
    name = "COCO_val2014_000000210789.jpg"
    assert questions[0] == Question(name, "Is there a truck in the image?", True, "random")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "no questions"),
        ("{", "line 1 is no JSON"),
        ("[]", "line 1 is no object"),
        ('{"image": "a.jpg", "text": "Is it?"}', "line 1: the label is None"),
        ('{"image": "a.jpg", "text": "Is it?", "label": "maybe"}', "neither yes nor no"),
        ('{"image": 3, "text": "Is it?", "label": "no"}', 'line 1: "image" is missing'),
        ('{"image": "a.jpg", "text": " ", "label": "no"}', 'line 1: "text" is missing'),
    ],
)
def test_lines_that_cannot_be_used(tmp_path, line, said):
    (tmp_path / "gt.jsonl").write_text(line)
    with pytest.raises(ValueError, match=said):
        read_questions(tmp_path / "gt.jsonl")


# ---- the first word ----------------------------------------------------------------------------------


def test_the_first_word_is_that_of_the_answer():
    """The greedy answer's own, and log-odds against the probabilities of eager logits in float64."""
    lmm = opinionated()
    asked = [lmm.prepare(tiny.a_photo(seed=i), f"Is there a {'dog' * i}?") for i in range(12)]
    found = first_words(lmm, asked)
    assert {one.is_yes for one in found} == {True, False, None}
    for prepared, word in zip(asked, found, strict=True):
        ((answer, _),) = lmm.run([prepared], AskOptions(2))
        assert answer.text[:1] == word.first_token and word.is_yes is {"y": True, "n": False}.get(word.first_token)
        with torch.no_grad():
            words = lmm.model(**prepared.inputs).logits[0, -1].double().softmax(-1)
        yes, no = (words[lmm.tokenizer.convert_tokens_to_ids([low, low.upper()])].sum() for low in "yn")
        assert word.log_odds == pytest.approx(float((yes / no).log()), abs=1e-4)


def test_what_is_no_number_is_refused():
    lmm = opinionated()
    lmm.model.lm_head.weight.data[5] = torch.nan
    with pytest.raises(CaptureError, match="not finite"):
        first_words(lmm, [lmm.prepare(tiny.a_photo(), "Is it?")])


def test_words_that_begin_alike_are_refused(monkeypatch):
    lmm = opinionated()
    monkeypatch.setattr(lmm.tokenizer, "encode", lambda word, **_: [7])
    with pytest.raises(ValueError, match="begins yes and no alike"):
        first_words(lmm, [])


# ---- the command -------------------------------------------------------------------------------------


@pytest.fixture
def things(tmp_path) -> Path:
    """A model, and two files of questions about three photographs, one that is broken and one that is not there."""
    lmm = opinionated()
    tiny.saved(lmm, tmp_path / "model")
    (tmp_path / "photos/val").mkdir(parents=True)
    for i, name in enumerate(("000000000001.png", "plain.png", "in.png")):
        Image.fromarray(tiny.a_photo(seed=i)).save(tmp_path / "photos/val" / name)
    (tmp_path / "photos/bad.png").write_bytes(b"no image")
    names = ("COCO_val2014_000000000001.png", "plain.png", "val/in.png", "bad.png", "gone.png")
    rows = [
        {"image": name, "text": f"Is there a {thing}?", "label": label, "setting": setting}
        for name in names
        for setting in ("random", "popular")
        for thing, label in (("dog", "yes"), ("big cat", "no"), (setting, "no"))
    ]
    (tmp_path / "first.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bare = [{key: row[key] for key in ("image", "text", "label")} for row in rows[::-5]]
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    return tmp_path


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["eval", "yesno", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_command(things):
    wanted = ("--gt", things / "first.jsonl", "--gt", things / "other.jsonl", "--images", things / "photos")
    written = ("--json", things / "out.json", "--csv", things / "out.csv", "--bootstrap", 50)
    code, said = run(*wanted, *written, "--model", things / "model", "--batch-size", 3)
    assert code == 3 and "1 missing images: gone.png" in said and "unreadable files: bad.png: " in said
    content = json.loads((things / "out.json").read_text())
    assert list(content["figures"]) == ["first", "first random", "first popular", "other"]
    assert content["counts"]["questions"] == {"first": 18, "first random": 9, "first popular": 9, "other": 3}
    assert len(content["answers"]) == 12  # each question once
    assert content["counts"].get("unreadable_answers", 0) == sum(one["is_yes"] is None for one in content["answers"])
    expected = expected_answers(things)
    for one in content["answers"]:
        assert (one["is_yes"], one["first_token"]) == expected[one["image"], one["text"]][:2]
        assert one["log_odds"] == pytest.approx(expected[one["image"], one["text"]][2], abs=1e-4)
    rows = read_questions(things / "first.jsonl")[:18]
    right = sum(expected[row.image, row.text][0] is row.is_yes for row in rows)
    assert content["figures"]["first"]["accuracy"] == pytest.approx(right / 18)
    assert f"{right / 18:.3f} [" in said and len(content["intervals"]["first"]["accuracy"]) == 2
    with (things / "out.csv").open() as file:
        assert [row["image_id"] for row in csv.DictReader(file)] == content["images"]
    compared = CliRunner().invoke(app, ["eval", "compare", *[str(things / "out.json")] * 2])
    assert compared.exit_code == 0 and "first popular" in compared.output and "+0.000" in compared.output


def expected_answers(things: Path) -> dict[tuple[str, str], tuple[bool | None, str, float]]:
    """Each question about each photograph, asked alone."""
    lmm, found = opinionated(), {}
    for i, name in enumerate(("COCO_val2014_000000000001.png", "plain.png", "val/in.png")):
        for text in (f"Is there a {thing}?" for thing in ("dog", "big cat", "random", "popular")):
            (word,) = first_words(lmm, [lmm.prepare(tiny.a_photo(seed=i), f"{text}\n{INSTRUCTION}")])
            found[name, text] = (word.is_yes, word.first_token, word.log_odds)
    return found


def test_what_cannot_be_asked_is_said(things):
    gt = things / "first.jsonl"
    code, said = run("--gt", gt, "--images", things / "model")
    assert code == 2 and "no images found" in said
    (things / "more").mkdir()
    Image.fromarray(tiny.a_photo()).save(things / "more/elsewhere.png")
    code, said = run("--gt", gt, "--images", things / "more")
    assert code == 2 and "none of the photographs that are asked about is there" in said
    (things / "more/first.jsonl").write_text(gt.read_text())
    code, said = run("--gt", gt, "--gt", things / "more/first.jsonl", "--images", things / "photos")
    assert code == 2 and "another is called first too" in said
    (things / "photos/000000000001.png").write_bytes(b"no image")
    code, said = run("--gt", gt, "--images", things / "photos")
    assert code == 2 and "give a folder that has one of them" in said
    (things / "more/bad.png").write_bytes(b"no image")
    code, said = run("--gt", gt, "--images", things / "more", "--model", things / "model")
    assert code == 2 and "No question was answered" in said and "bad.png" in said
