"""Phrase confidence: its signals and its rule against their formulas, and what becomes of it in files and commands."""

import json
import math
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy
from skimage import data
from typer.testing import CliRunner

import aas
from aas.cli import app
from aas.confidence import judging
from aas.confidence.rule import Rule, Rules, embedded_rules, rules_of
from aas.confidence.signals import signals_of
from aas.paths import embedded_dir
from aas.records import Answer, AttentionMaps, Phrase, View
from aas.store.attention import read_item, write_item

SENTENCE = "a red cat sits"
TOKENS = ((0, 1), (1, 5), (5, 9), (9, 14))
CAT = Phrase("a red cat", (0, 9), (6, 9), (2,))
SITS = Phrase("sits", (10, 14), (10, 14), (3,))


def run(*words: object):
    return CliRunner().invoke(app, list(map(str, words)))


# ---- signals and rule --------------------------------------------------------------------------------


@pytest.fixture
def answered() -> tuple[Answer, AttentionMaps]:
    draws = np.random.default_rng(0)
    mean, tam = draws.random((2, 4, 3, 5)).astype(np.float32)
    answer = Answer("What?", SENTENCE, (1, 2, 3, 4), TOKENS, (-0.5, -3.0, -1.0, -40.0))
    view = View((3, 5), (0, 0, 50, 30))
    return answer, AttentionMaps(mean, view, beside={"tam": tam}, margins=np.array([1, 2, -3, 4], np.float32))


def test_signals_by_hand(answered):
    answer, attention = answered
    cat, sits = signals_of(answer, attention, [CAT, SITS], "mean", None)
    pointing = attention.maps[2] - attention.maps.mean(0)
    above = pointing.clip(0).ravel()
    assert cat["word"] == -3.0 and sits["word"] == pytest.approx(math.log(1e-6))
    assert cat["peak"] == pytest.approx((pointing.max() - pointing.mean()) / pointing.std(), rel=1e-5)
    assert cat["entropy"] == pytest.approx(entropy(above / above.sum(), base=15), rel=1e-5)
    assert cat["margin"] == -3.0
    of_tam = attention.beside["tam"][2].ravel()
    assert cat["agreement"] == pytest.approx(np.corrcoef(pointing.ravel(), of_tam)[0, 1], rel=1e-4)


def test_signals_that_are_not_known_are_not_there(answered):
    answer, attention = answered
    alone = replace(attention, beside={}, margins=None)
    (known,) = signals_of(replace(answer, token_log_probs=None), alone, [CAT], "mean", None)
    assert known.keys() == {"peak", "entropy"}, "one source, and nothing of the words"
    flat = replace(alone, maps=np.ones_like(alone.maps))
    (known,) = signals_of(answer, flat, [CAT], "mean", None)
    assert (known["peak"], known["entropy"]) == (0.0, 1.0)


def test_the_rule_is_logistic_and_cut():
    rule = Rule(("mean",), 0.5, {"word": (-1.0, 2.0, 1.5), "peak": (4.0, 0.5, -2.0)})
    assert rule({"word": -2.0, "peak": 4.2}) == pytest.approx(1 / (1 + math.exp(-(0.5 - 0.75 - 0.8))))
    assert rule({"word": 99.0, "peak": 4.0}) == pytest.approx(1 / (1 + math.exp(-(0.5 + 4.5))))
    with pytest.raises(KeyError):
        rule({"word": 1.0})


def test_the_rule_of_most_sources_that_are_there():
    alone, both = (Rule(maps, 0.0, {}) for maps in (("mean",), ("mean", "tam")))
    rules = Rules((alone, both), {})
    assert rules.of(["mean"]) == rules.of(["mean", "lens"]) == alone
    assert rules.of(["mean", "lens", "tam"]) == both
    assert rules.of(["tam", "mean"]) is None


# ---- groundings --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grounder() -> aas.Grounder:
    return aas.Grounder()


def test_the_rules_that_ship_are_of_the_models_that_ship(grounder):
    made = json.loads((embedded_dir("confidence") / "rules.json").read_text())
    for name, digest in made["made"]["sha256"].items():
        (weights,) = embedded_dir(name).glob("*.safetensors")
        there = sha256(weights.read_bytes()).hexdigest()
        assert there == digest, f"the {name} is another: python scripts/embedded/fit_confidence.py fit"
    assert made["made"]["split"] == "choose" and rules_of(made).rules[0].maps == grounder.ask_options.maps


def test_what_kind_of_number_it_is(grounder):
    image = data.chelsea()
    own, asked = grounder(image), grounder(image, "What is on the sofa?")
    given = grounder(image, answer=own.answer.text)
    assert (own.confidence_kind, asked.confidence_kind, given.confidence_kind) == ("calibrated", *["uncalibrated"] * 2)
    assert own.labels and ((own.confidences > 0) & (own.confidences < 1)).all()
    other = replace(grounder.judge, model="llava-hf/llava-1.5-7b-hf")
    phrases = [one.phrase for one in own]
    token = other(own.answer, own.attention, phrases, judging.AnswerOrigin(False))
    spans, log_probs = own.answer.token_spans, own.answer.token_log_probs
    least = [
        min(p for p, (start, end) in zip(log_probs, spans, strict=True) if start < one.span[1] and end > one.span[0])
        for one in own
    ]
    assert token.kind == "token" and token.values == pytest.approx(np.exp(least), abs=1e-4)
    silent = replace(own.answer, token_log_probs=None)
    assert other(silent, own.attention, phrases, judging.AnswerOrigin(False)) is None
    with pytest.raises(ValueError, match="--min-confidence needs"):
        replace(other, least=0.5)(silent, own.attention, phrases, judging.AnswerOrigin(False))


def test_how_masks_come_about_does_not_matter(grounder):
    """A trained head, and a segmenter that cannot judge its masks: the same rule, and the same confidences."""
    parts, expected = (grounder.lmm, grounder.segmenter, grounder.pipeline), grounder(data.chelsea())
    by_head = aas.Grounder(*parts, head="proposals")(data.chelsea())
    by_map = aas.Grounder(grounder.lmm, "map", grounder.pipeline)(data.chelsea())
    for other in (by_head, by_map):
        assert other.confidence_kind == "calibrated" and (other[0].mask != expected[0].mask).any()
        np.testing.assert_array_equal(other.confidences, expected.confidences)


def test_what_is_loaded_keeps_its_name(grounder):
    """So the confidence of what aas loaded is that of `aas ground`; who brings weights of his own gets no rule."""
    image, parts = data.chelsea(), (grounder.lmm, grounder.segmenter, grounder.pipeline)
    loaded, named = aas.Grounder(*parts)(image), grounder(image)
    assert loaded.confidence_kind == "calibrated" and loaded.labels == named.labels
    np.testing.assert_array_equal(loaded.confidences, named.confidences)
    own = aas.Grounder(grounder.lmm.model, *parts[1:], processor=grounder.lmm.processor)
    assert own.judge.model == ""


def test_other_sources_agree_or_do_not(grounder, monkeypatch):
    """The fullest rule that ships, by hand from what the grounding holds."""
    rule = max(embedded_rules().rules, key=lambda one: len(one.maps))
    monkeypatch.setattr(grounder, "ask_options", replace(grounder.ask_options, maps=rule.maps))
    several = grounder(data.chelsea())
    assert several.confidence_kind == "calibrated" and several.attention.margins.shape == (len(several.token_maps),)
    signals = signals_of(several.answer, several.attention, [one.phrase for one in several], "mean", None)
    np.testing.assert_allclose(several.confidences, [rule(one) for one in signals], atol=1e-4)
    assert {"agreement", "margin"} <= rule.weights.keys()


def test_too_little_is_left_out_and_comes_back(grounder, tmp_path):
    photo = tmp_path / "cat.png"
    Image.fromarray(data.chelsea()).save(photo)
    answer = "A cat is beside a bus"
    both = grounder(photo, answer=answer)
    low, high = sorted(both, key=lambda one: one.confidence)
    least = (low.confidence + high.confidence) / 2
    words = ("ground", photo, "--answer", answer, "--out", tmp_path / "out", "--min-confidence", least, "--json")
    assert (result := run(*words)).exit_code == 0, result.output
    item = json.loads((tmp_path / "out/cat.json").read_text())
    assert (item["phrases"], item["left_out"]) == ([high.text], [low.text])
    assert item["confidences"] == [high.confidence] and item["confidence_kind"] == "uncalibrated"
    back = aas.Grounding.load(tmp_path / "out/cat.json")
    assert [one.confidence for one in back] == [high.confidence] and back.confidence_kind == "uncalibrated"
    assert back.item()["token_probabilities"] == item["token_probabilities"]
    page = (tmp_path / "out/report.html").read_text()
    assert f'"confidence (uncalibrated)":{high.confidence}' in page and f"Not shown on the picture: {low.text}" in page
    assert run(*words[:-2], 1.5).exit_code == 2
    with pytest.raises(ValueError, match="from 0 to 1"):
        aas.Grounder(min_confidence=2)


def test_an_answer_that_is_told_keeps_to_it(grounder, monkeypatch):
    least = float(np.median(grounder(data.coffee()).confidences))
    monkeypatch.setattr(grounder, "judge", replace(grounder.judge, least=least))
    told = list(grounder.stream(data.coffee()))
    kept = [one for one in told if isinstance(one, aas.records.GroundedPhrase)]
    assert told[-1].left_out and [one.span for one in kept] == [one.span for one in told[-1]]
    assert all(one.confidence >= least for one in kept)


# ---- stages ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def captured(tmp_path_factory) -> Path:
    """A photograph, what was captured of it, and the same as an item of before."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "photos").mkdir()
    Image.fromarray(data.chelsea()).save(folder / "photos/cat.png")
    words = ("infer-attn", "--model", "embedded", "--images", folder / "photos", "--out", folder / "attn")
    assert (result := run(*words)).exit_code == 0, result.output
    (folder / "old").mkdir()
    item = read_item(folder / "attn/cat.png.safetensors")
    item = replace(item, answer=replace(item.answer, token_log_probs=None))
    write_item(folder / "old/cat.png.safetensors", item)
    return folder


def test_segment_knows_what_ground_knows(grounder, captured):
    words = ("segment", "gcg", "--images", captured / "photos")
    assert run(*words, "--attn", captured / "attn", "--out", captured / "masks", "--drop", "pronouns").exit_code == 0
    item = json.loads((captured / "masks/cat.json").read_text())
    by_attention = aas.Grounder(grounder.lmm, grounder.segmenter, grounder.pipeline, maps="mean")  # as it is captured
    grounding = by_attention(captured / "photos/cat.png")
    assert item["phrases"] == grounding.labels and item["confidence_kind"] == "calibrated"
    np.testing.assert_allclose(item["confidences"], grounding.confidences, atol=2e-3)
    assert item["token_probabilities"] == pytest.approx(grounding.item()["token_probabilities"], abs=2e-3)
    assert run(*words, "--attn", captured / "attn", "--out", captured / "none", "--min-confidence", 1).exit_code == 0
    item = json.loads((captured / "none/cat.json").read_text())
    assert (
        item["phrases"] == item["confidences"] == item["pred_masks"] == [] and grounding.labels[0] in item["left_out"]
    )
    assert run("view", captured / "masks", "--no-open").exit_code == 0
    assert '"confidence":' in (captured / "masks/report.html").read_text()


def test_attention_of_before_has_no_confidence(captured):
    words = ("segment", "gcg", "--images", captured / "photos", "--attn", captured / "old", "--out", captured / "plain")
    assert run(*words).exit_code == 0
    item = json.loads((captured / "plain/cat.json").read_text())
    assert item["phrases"] and not {"confidences", "confidence_kind", "token_probabilities", "left_out"} & item.keys()
    refused = run(*words[:-1], captured / "refused", "--min-confidence", 0.5)
    assert refused.exit_code == 2 and "aas infer-attn" in refused.output and not (captured / "refused").exists()
