"""What a model thinks aloud is not its answer: noticed by any marks, no part of phrases and of the mean."""

import copy

import numpy as np
import pytest

from aas.geometry import stretched_view
from aas.phrases.alignment import decode_with_spans
from aas.phrases.given import check_written
from aas.phrases.parser import load_pipeline, noun_phrases
from aas.pointing.phrases import PointingOptions, point_phrases
from aas.records import Answer, AttentionMaps
from tests import tiny

PIPELINE = load_pipeline("embedded")
MARKS = [
    ("<think>", "</think>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("◁think▷", "◁/think▷"),
]  # fmt: skip


def written(tokenizer, begin: str, end: str, special: bool) -> tuple[list[int], list[int]]:
    """Token ids of a reasoning and an answer; and the indices of those behind the reasoning."""
    added = {"extra_special_tokens": [begin, end]}
    tokenizer.add_special_tokens(added) if special else tokenizer.add_tokens([begin, end])
    thought = tokenizer.encode(" Is there a cat?", add_special_tokens=False)
    said = tokenizer.encode(" A dog sits on a bench.", add_special_tokens=False)
    ids = [tokenizer.convert_tokens_to_ids(begin), *thought, tokenizer.convert_tokens_to_ids(end), *said]
    ids.append(tokenizer.eos_token_id)
    return ids, list(range(len(thought) + 2, len(ids)))


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
@pytest.mark.parametrize("marks", MARKS, ids=lambda marks: marks[0])
def test_any_marks_are_noticed(family, marks, special):
    tokenizer = copy.deepcopy(tiny.family(family).tokenizer)
    ids, said = written(tokenizer, *marks, special)
    text, spans = decode_with_spans(tokenizer, ids)
    answer = Answer("", text, tuple(ids), tuple(spans))
    phrases = noun_phrases(PIPELINE, answer)
    assert [phrase.text for phrase in phrases] == ["A dog", "a bench"]
    assert all(set(phrase.token_indices) <= set(said) for phrase in phrases)
    both = noun_phrases(PIPELINE, answer, reasoning=True)
    assert [phrase.text for phrase in both] == ["a cat", "A dog", "a bench"]
    check_written(tokenizer, ids, text)
    if special:  # which another engine leaves out
        check_written(tokenizer, ids, text.replace(marks[0], "").replace(marks[1], ""))


@pytest.mark.parametrize("marks", [("<thinking of>", "</thinking of>"), ("[thinking]", "[/x]"), ("<|image|>", "<|x|>")])
def test_other_words_are_no_marks(marks):
    text = f"{marks[0]} Is there a cat? {marks[1]} A dog sits."
    answer = Answer("", text, tuple(range(len(text))), tuple((i, i + 1) for i in range(len(text))))
    assert {"a cat", "A dog"} <= {phrase.text for phrase in noun_phrases(PIPELINE, answer)}


@pytest.mark.parametrize("reasoning", [True, False])
@pytest.mark.parametrize("special", [True, False])
def test_the_mean_is_of_the_tokens_that_count(special, reasoning):
    tokenizer = copy.deepcopy(tiny.family("llava").tokenizer)
    ids, said = written(tokenizer, "<think>", "</think>", special)
    text, spans = decode_with_spans(tokenizer, ids)
    answer = Answer("", text, tuple(ids), tuple(spans))
    maps = np.random.default_rng(0).random((len(ids), 4, 4), np.float32)
    attention = AttentionMaps(maps, stretched_view((4, 4), (40, 40)))
    pointed, _ = point_phrases(PIPELINE, answer, attention, PointingOptions(reasoning=reasoning), (40, 40))
    counted = list(range(len(ids))) if reasoning else said
    assert len(pointed) == 3 if reasoning else 2
    for one in pointed:
        expected = maps[list(one.phrase.token_indices)].mean(0) - maps[counted].mean(0)
        np.testing.assert_allclose(one.map, expected, atol=1e-6)


def test_of_an_answer_without_reasoning_all_tokens_count():
    text = "A dog sits."
    answer = Answer("", text, tuple(range(12)), (*((i, i + 1) for i in range(11)), (11, 11)))
    maps = np.random.default_rng(0).random((12, 4, 4), np.float32)
    (pointed,), _ = point_phrases(
        PIPELINE, answer, AttentionMaps(maps, stretched_view((4, 4), (40, 40))), PointingOptions(), (40, 40)
    )
    assert np.array_equal(pointed.map, (maps - maps.mean(0, keepdims=True))[2:5].mean(0))
