"""The captured maps against eager attention, transformers' own independent path."""

import numpy as np
import pytest
import torch
from transformers import AttentionInterface, LlamaConfig
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from aas import capture
from aas.capture import Selection
from aas.lmms import load_lmm
from aas.lmms.llava import Llava
from aas.lmms.prepared import AskOptions
from aas.lmms.sampling import Sampling
from tests.tiny.llava import llava

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


@pytest.fixture(scope="module")
def lmm() -> Llava:
    return Llava(*llava(), "tiny")


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


def test_long_answers_are_flushed_in_parts(lmm, monkeypatch):
    (answer, maps) = lmm.ask(IMAGE, "What is it?", options=AskOptions(12))
    monkeypatch.setattr(capture, "STASHED_STEPS", 5)
    monkeypatch.setattr(capture, "TRANSIENT_BYTES", 1)
    again, in_parts = lmm.ask(IMAGE, "What is it?", options=AskOptions(12))
    assert answer.token_ids == again.token_ids and len(answer.token_ids) == 12
    assert_same(in_parts.maps, maps.maps)
    batch = [lmm.prepare(IMAGE, question) for question in ("What is it?", "Who sits on the bench?")]
    assert_same(lmm.run(batch, AskOptions(12))[0][1].maps, maps.maps)


def test_a_selection_of_layers_and_heads(lmm):
    _, all_maps = lmm.ask(IMAGE, "What is it?", "a dog", AskOptions(selection=Selection(keep="heads")))
    _, some = lmm.ask(IMAGE, "What is it?", "a dog", AskOptions(selection=Selection((0, -1), (1, 3), "heads")))
    np.testing.assert_array_equal(some.maps, all_maps.maps[[0, 2]][:, [1, 3]])
    _, mean = lmm.ask(IMAGE, "What is it?", "a dog", AskOptions(selection=Selection((0, -1), (1, 3))))
    assert_same(mean.maps, all_maps.maps[[0, 2]][:, [1, 3]].mean((0, 1)))
    with pytest.raises(ValueError, match=r"3 layers.*no 3"):
        lmm.ask(IMAGE, "What is it?", options=AskOptions(selection=Selection(layers=(3,))))
    with pytest.raises(ValueError, match=r"4 heads.*no -5"):
        lmm.ask(IMAGE, "What is it?", options=AskOptions(selection=Selection(heads=(-5,))))


def test_every_image_draws_for_itself(lmm):
    batch = [lmm.prepare(IMAGE, question) for question in ("What is it?", "Who sits on the bench?")] * 2
    options = AskOptions(10, Sampling(temperature=3.0, top_p=0.95), seed=7)
    together = [answer.token_ids for answer, _ in lmm.run(batch, options)]
    alone = [lmm.run([one], options)[0][0].token_ids for one in batch]
    assert together == alone
    others = lmm.run(batch[:1], AskOptions(10, Sampling(3.0, 0.95), seed=8))
    assert others[0][0].token_ids != together[0]


def test_draws_follow_the_probabilities():
    scores = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    processors = Sampling(temperature=2.0, top_p=0.85).processors(1, 0, torch.device("cpu"))
    draws = torch.cat([processors(torch.zeros(1, 1, dtype=torch.int64), scores).argmax(-1) for _ in range(4000)])
    share = torch.bincount(draws, minlength=4) / len(draws)
    kept = (scores[0] / 2).softmax(0)
    kept[3] = 0  # the other three already hold 0.85
    torch.testing.assert_close(share, kept / kept.sum(), atol=0.03, rtol=0)


def test_rows_sum_to_one_over_the_keys_they_see():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8)
    rows = torch.tensor([[1, 5], [0, 3]])
    everything = torch.arange(6).expand(2, -1)
    watch = capture.AttentionCapture(everything, Selection(keep="heads"), rows)
    watch.record(0, capture.Call(query, key, None, 0.3))
    weights = watch.maps()[:, 0]
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 2))
    assert (weights[1, :, 0, 1:] == 0).all(), "the first query sees the first key only"


@pytest.mark.parametrize("rows", [None, torch.tensor([[0]])], ids=["generation", "replay"])
def test_layers_on_several_devices(rows):
    """Each layer's maps are computed where its keys are. The device `meta` holds no numbers."""
    layers = Selection(keep="layers")
    watch = capture.AttentionCapture(torch.tensor([[0, 2]]), layers, rows)
    for _ in range(1 if rows is not None else 3):
        for index, device in enumerate(["cpu", "meta", "cpu"]):
            query, key = torch.randn(1, 4, 1, 8, device=device), torch.randn(1, 2, 5, 8, device=device)
            watch.record(index, capture.Call(query, key, None, 0.3))
    for index, layer in watch._layers.items():
        assert watch._joined_mask(layer).device.type == ["cpu", "meta", "cpu"][index]
        watch._flush(index, layer)
    assert [watch._chunks[0][index].device.type for index in range(3)] == ["cpu", "meta", "cpu"]


@pytest.mark.parametrize("boolean", [True, False])
def test_rows_under_a_padding_mask(boolean):
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].clone()
    visible[..., 0] = False
    visible[..., 0, 0] = True  # a row that sees nothing has no softmax
    mask = visible if boolean else torch.zeros(1, 1, 5, 5).masked_fill(~visible, torch.finfo(torch.float32).min)
    ours = capture.attention_rows(query, key, mask, 0.3, torch.arange(5)[None])
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.3
    torch.testing.assert_close(ours, scores.masked_fill(~visible, -torch.inf).softmax(-1))


def test_own_attention_is_sdpa_where_there_is_no_cap():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8), torch.randn(1, 2, 5, 8)
    visible = torch.ones(5, 5, dtype=torch.bool).tril()[None, None].clone()
    visible[..., :2] = False  # left padding: the first two see nothing
    ours = capture._plain_attention(capture.Call(query, key, visible, 0.3), value)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    expected = sdpa(query, key, value, visible, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, expected.transpose(1, 2))


def test_infinite_attention_names_the_layer():
    model, processor = llava()
    with torch.no_grad():
        model.model.language_model.layers[1].self_attn.q_proj.weight.fill_(float("inf"))
    with pytest.raises(capture.CaptureError, match=r"layer 1.*bfloat16"):
        Llava(model, processor, "broken").ask(IMAGE, "What is it?", "a dog")


def padded_flash(module, query, key, value, attention_mask, scaling=None, **kwargs):
    """An attention that is told of padding as flash kernels are: by a mask [B, S] or None, beside being causal."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    visible = torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)[None, None]
    if attention_mask is not None:
        assert attention_mask.ndim == 2
        visible = visible & attention_mask[:, None, None, :].bool()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~visible, torch.finfo(torch.float32).min)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def test_beside_a_flash_kernel(lmm):
    """Its padding mask has two dimensions, and is None where nothing is padded."""
    AttentionInterface.register("padded_flash", padded_flash)
    AttentionMaskInterface.register("padded_flash", flash_attention_mask)
    model, processor = llava()
    model.set_attn_implementation({"text_config": "padded_flash"})
    flash = Llava(model, processor, "flash")
    assert model.config.text_config._attn_implementation == "padded_flash"
    batch = [lmm.prepare(IMAGE, question) for question in ("What is it?", "Who sits on the wooden bench?")]
    for items in (batch, batch[:1], [lmm.prepare(IMAGE, "What is it?", "a dog and a cat")] * 2):
        options = AskOptions(8, selection=Selection(keep="heads"), decoding="generate")
        for ours, expected in zip(flash.run(items, options), lmm.run(items, options), strict=True):
            assert ours[0] == expected[0]
            assert_same(ours[1].maps, expected[1].maps)


def test_a_prompt_longer_than_the_context(lmm):
    with pytest.raises(capture.CaptureError, match=r"\d{3,} tokens, the model's context holds 512: shrink the image"):
        lmm.prepare(IMAGE, "What is it? " * 300)


def test_a_model_that_sees_nothing(tmp_path):
    LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"'llama'.*adding-a-model"):
        load_lmm(str(tmp_path))


def test_a_prompt_without_its_image(lmm):
    """As a broken chat template makes it."""
    inputs = lmm.inputs(IMAGE, "What is it?")
    without = {key: value[:, -5:] if value.ndim == 2 else value for key, value in inputs.items()}
    with pytest.raises(capture.CaptureError, match="0 image tokens where a grid of 4 x 4"):
        lmm.grids(without, IMAGE.shape[:2])
