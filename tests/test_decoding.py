"""Answers written in slots: what `generate` writes, whoever else is there, by steps in which no Python runs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from aas import capture
from aas.capture import NOTHING, Selection
from aas.decoding import memory, writing
from aas.decoding.engine import Engine
from aas.lmms import answered, decoded
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions, Prepared
from aas.lmms.sampling import Sampling
from aas.records import Answer, AttentionMaps
from tests import tiny
from tests.test_families import QUESTIONS, SIZES_HW, assert_same

LONG, FEW = 14, 4  # steps, and how many are stashed, so that rows are computed in the midst of an answer
SOME = ["llava", "paligemma", "qwen2_vl"]  # plain, with a prefix that sees all, with positions of several axes


@pytest.fixture(autouse=True)
def few_stashed_steps(monkeypatch):
    monkeypatch.setattr(capture, "STASHED_STEPS", FEW)


def ending_lmm(name: str, options: AskOptions) -> tuple[LMM, list[Prepared], list[tuple[Answer, AttentionMaps]]]:
    """One whose answers to these prompts have different lengths, as `generate` writes them."""
    lmm = copy.deepcopy(tiny.family(name))
    batch = [lmm.prepare(tiny.a_photo(SIZES_HW[i % 4], seed=i), QUESTIONS[i % 4]) for i in range(5)]
    endless = lmm.run(batch, replace(options, decoding="generate"))
    lmm.model.generation_config.eos_token_id = [endless[i][0].token_ids[n] for i, n in enumerate((2, 5, 9))]
    expected = lmm.run(batch, replace(options, decoding="generate"))
    assert len({len(answer.token_ids) for answer, _ in expected}) > 2
    return lmm, batch, expected


def assert_equal(found: list[tuple[Answer, AttentionMaps]], expected: list[tuple[Answer, AttentionMaps]]) -> None:
    for (answer, maps), (other, others) in zip(found, expected, strict=True):
        assert answer == other
        np.testing.assert_allclose(answer.token_log_probs, other.token_log_probs, atol=1e-4)
        assert_same(maps.maps, others.maps, 1e-5)


@pytest.mark.parametrize("name", SOME)
def test_who_else_is_there_changes_no_answer(name, monkeypatch):
    options = AskOptions(LONG)
    lmm, batch, expected = ending_lmm(name, options)
    monkeypatch.setattr(answered, "generated", None)  # nobody falls back on it
    assert_equal(lmm.run(batch, options, at_once=2), expected)
    monkeypatch.setattr(writing, "PROMPT_TOKENS_AT_ONCE", 1)  # prompts are read one by one
    assert_equal(lmm.run(batch, options, at_once=3), expected)


def of_recorded_operations(run):
    """What a CUDA graph does, on a CPU: the operations that `run` makes, on the same memory, and no Python of it."""
    with torch.no_grad():
        traced = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)()
    assert not any("_local_scalar_dense" in str(node.target) for node in traced.graph.nodes)
    return traced


@pytest.mark.parametrize("name", SOME[::2])
def test_recorded_steps(name, monkeypatch):
    options, n_recorded = AskOptions(LONG), 0

    def record(run):
        nonlocal n_recorded
        n_recorded += 1
        return of_recorded_operations(run)

    def recording(model, n_slots, capacity, selection, records, _):
        return Engine(model, n_slots, capacity, selection, records, record)

    lmm, batch, expected = ending_lmm(name, options)
    monkeypatch.setattr(answered, "generated", None)
    monkeypatch.setattr(decoded, "Engine", recording)
    assert_equal(lmm.run(batch, options, at_once=2), expected)
    assert n_recorded


def test_a_step_that_cannot_be_recorded_is_run(monkeypatch, caplog):
    def record(_):
        raise RuntimeError("operation not permitted when stream is capturing")

    def recording(model, n_slots, capacity, selection, records, _):
        return Engine(model, n_slots, capacity, selection, records, record)

    lmm = tiny.family("llava")
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0])
    expected = lmm.run([one], AskOptions(4))
    monkeypatch.setattr(decoded, "Engine", recording)
    assert_equal(lmm.run([one], AskOptions(4)), expected)
    assert "not recorded" in caplog.text


@pytest.mark.parametrize(
    ("settings", "sampling"), [({"repetition_penalty": 1.3}, None), ({"repetition_penalty": 1.1}, Sampling(1.5, 0.9))]
)
def test_settings_that_look_at_an_answers_own_words(settings, sampling, monkeypatch):
    lmm = copy.deepcopy(tiny.family("llava"))
    lmm.model.generation_config.update(**settings)
    batch = [lmm.prepare(tiny.a_photo(seed=i), QUESTIONS[0]) for i in range(3)]  # as long: `generate` counts padding
    options = AskOptions(12, sampling)
    expected = lmm.run(batch, replace(options, decoding="generate"))
    monkeypatch.setattr(answered, "generated", None)
    assert_equal(lmm.run(batch, options, at_once=2), expected)


def test_settings_that_count_steps_are_left_to_generate():
    lmm = copy.deepcopy(tiny.family("llava"))
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0])
    ((free, _),) = lmm.run([one], AskOptions(6))
    lmm.model.generation_config.update(eos_token_id=free.token_ids[1], min_new_tokens=4)
    ((answer, _),) = lmm.run([one], AskOptions(6))
    assert len(answer.token_ids) >= 4


@pytest.mark.parametrize("name", ["exaone4_5", "florence2", "gemma3", "mllama", "paligemma2", "qwen3_5"])
def test_models_whose_layers_do_not_keep_all_keys_are_left_to_generate(name):
    assert not decoded.suits(tiny.family(name), AskOptions())


def test_answers_alone():
    lmm = tiny.family("llava")
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0])
    ((answer, _),) = lmm.run([one], AskOptions(5))
    (ids,) = lmm.answered([one], AskOptions(5))
    assert tuple(ids.tolist()) == answer.token_ids
    other = tiny.family("gemma3")
    (ids,) = other.answered([other.prepare(tiny.a_photo(), QUESTIONS[0])], AskOptions(2))
    assert len(ids) == 2


@pytest.mark.parametrize("name", ["llava", "qwen2_vl"])
def test_bytes_of_an_answer_are_those_of_its_buffers(name):
    lmm, config = tiny.family(name), tiny.family(name).text_config
    engine = Engine(lmm.model, 3, 128, Selection(), lmm.records, lambda run: run)
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0])
    options = AskOptions(2)
    with lmm.watched(engine.capture):
        reading = decoded._Reading(lmm, [one], options, engine, 2)
        prompt = writing.Prompt(one.length, one.grids[0].positions)
        writing.Writing(engine, [prompt], reading.read, reading.chosen, [], 2, 1).run()
    n_queries = sum(queries.nbytes for queries in engine.capture._queries.values())
    each = memory.bytes_of_answer(config, lmm.model.dtype, 128, 10, Selection())
    assert 3 * (each - 16 * config.vocab_size - 4 * 128 * 10) == engine.slots.n_bytes + n_queries
    heads = memory.bytes_of_answer(config, lmm.model.dtype, 128, 10, Selection(keep="heads"))
    n_maps = config.num_hidden_layers * config.num_attention_heads
    assert heads - each == 4 * (n_maps - 1) * 128 * 10
    assert copy.deepcopy(engine) is None, "a copy of the model makes its own"


def test_as_many_as_memory_holds(monkeypatch):
    assert memory.answers_that_fit(10, None, 7) == 7
    assert memory.answers_that_fit(10, 1000, 100) == 60
    assert memory.answers_that_fit(10, 3, 100) == 1
    monkeypatch.setattr(decoded, "free_bytes", lambda device: 1)
    sizes = []
    monkeypatch.setattr(decoded, "Engine", lambda *of: sizes.append(of[1]) or Engine(*of))
    lmm = tiny.family("llava")
    batch = [lmm.prepare(tiny.a_photo(seed=i), QUESTIONS[0]) for i in range(2)]
    lmm.run(batch, AskOptions(2))
    assert sizes == [1]
    assert len(lmm.answered(batch, AskOptions(2))) == 2 and NOTHING.layers == ()
