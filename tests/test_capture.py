"""The captured maps against eager attention, transformers' own independent path."""

import copy

import numpy as np
import pytest
import torch

from aas import capture
from aas.lmms.llava import Llava
from tests import tiny

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def eager_maps(lmm: Llava, token_ids: tuple[int, ...], alignment: str = "predict", heads=None) -> np.ndarray:
    """[tokens, N] from output_attentions=True over prompt and answer."""
    model = copy.deepcopy(lmm.model)
    model.set_attn_implementation("eager")
    inputs = lmm.inputs(IMAGE, "What is it?")
    columns = lmm.columns(inputs)[0]
    n_prompt = inputs["input_ids"].shape[1]
    ids = torch.cat([inputs["input_ids"], torch.tensor([token_ids])], dim=1)
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=inputs["pixel_values"], output_attentions=True)
    layers = torch.stack(output.attentions)[:, 0]  # [layers, heads, S, S]
    layers = layers if heads is None else layers[:, heads]
    first = n_prompt - (alignment == "predict")
    return layers.mean((0, 1))[first : first + len(token_ids)][:, columns].numpy()


@pytest.fixture(scope="module", params=[4, 2], ids=["all heads have keys", "grouped queries"])
def lmm(request) -> Llava:
    return Llava(*tiny.llava(n_kv_heads=request.param), "tiny")


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


def test_generation_equals_eager(lmm):
    answer, maps = lmm.ask(IMAGE, "What is it?", max_new_tokens=12)
    assert len(answer.token_ids) == len(maps.maps) > 1
    assert_same(maps.maps.reshape(len(maps.maps), -1), eager_maps(lmm, answer.token_ids))


def test_generation_is_what_sdpa_generates(lmm):
    answer, _ = lmm.ask(IMAGE, "What is it?", max_new_tokens=12)
    plain = copy.deepcopy(lmm.model)
    plain.set_attn_implementation("sdpa")
    inputs = lmm.inputs(IMAGE, "What is it?")
    sequence = plain.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tuple(sequence.tolist()) == answer.token_ids


def test_replay_equals_generation(lmm):
    answer, maps = lmm.ask(IMAGE, "What is it?", max_new_tokens=12)
    inputs = lmm.inputs(IMAGE, "What is it?")
    again = capture.replay(lmm.model, inputs, torch.tensor([answer.token_ids]), lmm.columns(inputs))
    assert_same(again[0].numpy(), maps.maps.reshape(len(maps.maps), -1))


def test_self_alignment_is_the_row_of_the_token_itself(lmm):
    ids = torch.tensor([[7, 50, 60, 2]])
    inputs = lmm.inputs(IMAGE, "What is it?")
    ours = capture.replay(lmm.model, inputs, ids, lmm.columns(inputs), alignment="self")
    assert_same(ours[0].numpy(), eager_maps(lmm, tuple(ids[0].tolist()), "self"))


def test_one_head_of_each_layer(lmm):
    answer, maps = lmm.ask(IMAGE, "What is it?", "a dog", heads=(-2,))
    assert_same(maps.maps.reshape(len(maps.maps), -1), eager_maps(lmm, answer.token_ids, heads=[-2]))


def test_rows_sum_to_one_over_the_keys_they_see():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    rows = torch.tensor([[1, 5], [0, 3]])
    everything = torch.arange(6).expand(2, -1)
    weights = capture.attention_rows(query, key, None, 0.3, rows, everything)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 2))
    assert (weights[1, :, 0, 1:] == 0).all(), "the first query sees the first key only"


@pytest.mark.parametrize("boolean", [True, False])
def test_rows_under_a_padding_mask(boolean):
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].clone()
    visible[..., 0] = False
    visible[..., 0, 0] = True  # a row that sees nothing has no softmax
    mask = visible if boolean else torch.zeros(1, 1, 5, 5).masked_fill(~visible, torch.finfo(torch.float32).min)
    rows = torch.arange(5)[None]
    ours = capture.attention_rows(query, key, mask, 0.3, rows, torch.arange(5)[None])
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.3
    torch.testing.assert_close(ours, scores.masked_fill(~visible, -torch.inf).softmax(-1))


def test_infinite_attention_names_the_layer():
    model, processor = tiny.llava()
    with torch.no_grad():
        model.model.language_model.layers[1].self_attn.q_proj.weight.fill_(float("inf"))
    with pytest.raises(capture.CaptureError, match=r"layer 1.*bfloat16"):
        Llava(model, processor, "broken").ask(IMAGE, "What is it?", "a dog")
