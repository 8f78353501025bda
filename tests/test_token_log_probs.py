"""How likely a model found its own words, and given ones: against the softmax of one plain pass, family by family."""

import numpy as np
import pytest
import torch

from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.sampling import Sampling
from aas.records import Answer
from aas.store.attention import AttentionItem, ItemError, read_item, write_item
from tests import tiny

FAMILIES = ["llava", "qwen2_vl", "paligemma", "mllama", "florence2", "gemma3"]


@pytest.fixture(params=FAMILIES)
def lmm(request) -> LMM:
    return tiny.family(request.param)


def by_one_pass(lmm: LMM, question: str, token_ids: tuple[int, ...]) -> np.ndarray:
    """Of each token: the log-softmax of all scores of the pass that has the tokens before it."""
    one, ids = lmm.prepare(tiny.a_photo(), question), torch.tensor(token_ids)
    inputs, _ = lmm.collated([lmm.with_answer(one.inputs, ids)], [torch.arange(1)])
    arguments = {name: value for name, value in lmm.forward_arguments(inputs).items() if name != "logits_to_keep"}
    with torch.no_grad():
        scores = lmm.model(**inputs, **arguments, return_dict=True).logits[0].log_softmax(-1)
    return scores[-1 - len(ids) : -1][torch.arange(len(ids)), ids].numpy()


def test_own_and_given_words_in_any_batch(lmm):
    questions = ["What is it?", "What is it, and what else do you see on the table behind it?"]
    batch = [lmm.prepare(tiny.a_photo(), question) for question in questions]
    own = [answer for answer, _ in lmm.run(batch, AskOptions(5))]
    cut = [own[0].token_ids, own[1].token_ids[:3]]
    again = [lmm.prepare(tiny.a_photo(), q, answer_ids=ids) for q, ids in zip(questions, cut, strict=True)]
    given = [answer for answer, _ in lmm.run(again, AskOptions(5))]
    for question, said, replayed in zip(questions, own, given, strict=True):
        expected = by_one_pass(lmm, question, said.token_ids)
        np.testing.assert_allclose(said.token_log_probs, expected, atol=2e-5)
        np.testing.assert_allclose(replayed.token_log_probs, expected[: len(replayed.token_ids)], atol=2e-5)


def test_they_are_the_models_own_before_a_temperature_and_a_penalty(monkeypatch):
    lmm = tiny.family("llava")
    monkeypatch.setattr(lmm.model.generation_config, "repetition_penalty", 3.0)
    one = lmm.prepare(tiny.a_photo(), "What is it?")
    ((drawn, _),) = lmm.run([one], AskOptions(5, Sampling(3.0, 0.9), seed=4))
    expected = by_one_pass(lmm, "What is it?", drawn.token_ids)
    np.testing.assert_allclose(drawn.token_log_probs, expected, atol=2e-5)


def test_an_item_keeps_them_and_older_ones_have_none(tmp_path):
    lmm = tiny.family("llava")
    ((answer, maps),) = lmm.run([lmm.prepare(tiny.a_photo(), "What is it?")], AskOptions(4))
    without = Answer(answer.question, answer.text, answer.token_ids, answer.token_spans)
    assert without == answer
    for name, one in (("new", answer), ("old", without)):
        path = tmp_path / f"{name}.safetensors"
        write_item(path, AttentionItem("a.png", (60, 80), one, maps))
        assert read_item(path).answer.token_log_probs == one.token_log_probs
    above = Answer(*vars(without).values())
    object.__setattr__(above, "token_log_probs", (0.5,) * len(answer.token_ids))
    write_item(tmp_path / "wrong.safetensors", AttentionItem("a.png", (60, 80), above, maps))
    with pytest.raises(ItemError, match="token_log_probs"):
        read_item(tmp_path / "wrong.safetensors")
