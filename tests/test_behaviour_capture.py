"""What is captured where families rarely go (ends of answers, windows, sinks), against eager attention."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AttentionInterface,
    GptOssConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    PreTrainedConfig,
)
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from aas import capture
from aas.capture import Selection
from aas.lmms.llava import Llava
from aas.lmms.prepared import AskOptions, Prepared
from tests import tiny
from tests.tiny.llava import llava

QUESTIONS = ["What is it?", "Who sits on the wooden bench near the old tree?"]
TEXT = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def llava_of(text_class: type[PreTrainedConfig], **options: object) -> Llava:
    """LLaVA whose language model is another one."""
    model, processor = llava()
    text = text_class(**TEXT | {"vocab_size": len(processor.tokenizer)} | options)
    torch.manual_seed(1)
    vision = model.config.vision_config
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, image_seq_length=16)
    other = LlavaForConditionalGeneration(config).eval()
    other.generation_config.update(bos_token_id=1, eos_token_id=None, pad_token_id=0)
    return Llava(other, processor, f"tiny llava of {text.model_type}")


def prepared(lmm: Llava, question: str = QUESTIONS[0], **options: object) -> Prepared:
    return lmm.prepare(tiny.a_photo(), question, **options)


def eager_maps(lmm: Llava, one: Prepared, token_ids: tuple[int, ...]) -> np.ndarray:
    """[layers, heads, tokens, 4, 4] of one forward pass over prompt and answer."""
    model = copy.deepcopy(lmm.model)
    model.set_attn_implementation("eager")
    ids = torch.cat([one.inputs["input_ids"], torch.tensor([token_ids])], dim=1)
    n_prompt = one.inputs["input_ids"].shape[1]
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=one.inputs["pixel_values"], output_attentions=True)
    columns = (ids[0] == 3).nonzero()[:, 0]
    rows = torch.stack(output.attentions)[:, 0, :, n_prompt - 1 : -1]
    return rows[..., columns].unflatten(-1, (4, 4)).numpy()


def assert_same(ours: np.ndarray, expected: np.ndarray) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


# ------------------------------------------------------------------------------------------ ends of answers


@pytest.mark.parametrize("alignment", ["predict", "self"])
def test_an_answer_ends_at_its_end_token_whatever_its_batch_goes_on_to_write(alignment):
    """Some answers of the batch end early; the model writes padding behind them until the last one is done."""
    lmm = Llava(*llava(), "tiny")
    lmm.model.generation_config.eos_token_id = None
    batch = [prepared(lmm, question) for question in QUESTIONS]
    whole = [answer.token_ids for answer, _ in lmm.run(batch, AskOptions(12))]
    end, length = next((t, i + 1) for i, t in enumerate(whole[0]) if i > 1 and t not in whole[0][:i] + whole[1])
    assert [len(ids) for ids in whole] == [12, 12] and length < 12
    lmm.model.generation_config.eos_token_id = [end]
    options = AskOptions(12, alignment=alignment)
    (short, short_maps), (long, long_maps) = lmm.run(batch, options)
    assert short.token_ids == whole[0][:length] and long.token_ids == whole[1]
    assert len(short_maps.maps) == length and len(long_maps.maps) == 12
    assert short.text == lmm.tokenizer.decode(whole[0][:length]).strip()
    if alignment == "predict":
        assert_same(short_maps.maps, eager_maps(lmm, batch[0], short.token_ids).mean((0, 1)))
    alone, alone_maps = lmm.run(batch[:1], options)[0]
    assert alone == short
    assert_same(short_maps.maps, alone_maps.maps)


def test_the_tokenizers_own_end_token_ends_an_answer_too():
    """A model whose generation config names other ends."""
    lmm = Llava(*llava(), "tiny")
    lmm.model.generation_config.eos_token_id = None
    one = prepared(lmm)
    whole = lmm.run([one], AskOptions(8))[0][0].token_ids
    lmm.tokenizer.eos_token = lmm.tokenizer.convert_ids_to_tokens(whole[3])
    assert lmm.run([one], AskOptions(8))[0][0].token_ids == whole[: whole.index(whole[3]) + 1]


# ------------------------------------------------------------------------------------------ windows and sinks


def flash_like(module, query, key, value, attention_mask, scaling=None, sliding_window=None, **kwargs):
    """An attention that is told of padding and windows as flash kernels are: causal by itself, a mask [B, S] or None
    for padding, and the number of keys that a query sees at most."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    ones = torch.ones(n_queries, n_keys, dtype=torch.bool)
    visible = ones.tril(n_keys - n_queries)[None, None]
    if sliding_window:
        visible = visible & ~ones.tril(n_keys - n_queries - sliding_window)
    if attention_mask is not None:
        assert attention_mask.ndim == 2
        visible = visible & attention_mask[:, None, None, :].bool()
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query @ key.transpose(-1, -2) * scaling).masked_fill(~visible, torch.finfo(torch.float32).min)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


@pytest.fixture(scope="module")
def windowed() -> tuple[Llava, Llava]:
    """The same weights under sdpa and beside a flash kernel; a query sees some of the image's tokens at first."""
    AttentionInterface.register("flash_like", flash_like)
    AttentionMaskInterface.register("flash_like", flash_attention_mask)
    sdpa = llava_of(MistralConfig, sliding_window=21)
    model = copy.deepcopy(sdpa.model)
    model.set_attn_implementation({"text_config": "flash_like"})
    return sdpa, Llava(model, sdpa.processor, "flash")


@pytest.mark.parametrize("kind", [0, 1], ids=["sdpa", "flash"])
def test_a_window_beside_a_padding_mask(windowed, kind):
    """Keys that have left the window weigh nothing, in generation, replay and padded batches."""
    lmm = windowed[kind]
    options = AskOptions(12, selection=Selection(keep="heads"))
    batch = [prepared(lmm, question) for question in QUESTIONS]
    for one, (answer, maps) in zip(batch, lmm.run(batch, options), strict=True):
        expected = eager_maps(windowed[0], one, answer.token_ids)
        assert_same(maps.maps, expected)
        given = replace(one, answer_ids=torch.tensor(answer.token_ids))
        assert_same(lmm.run([given], options)[0][1].maps, expected)
    first = lmm.run(batch[:1], options)[0][1].maps
    assert first[0, :, 0].any() and not first[:, :, -1].any(), "the image was in the window, then it was not"
    given = [prepared(lmm, question, answer="a dog and a cat") for question in QUESTIONS]
    for one, (answer, maps) in zip(given, lmm.run(given, options), strict=True):
        assert_same(maps.maps, eager_maps(windowed[0], one, answer.token_ids))


@pytest.fixture(scope="module")
def sinking() -> Llava:
    """GPT-OSS: every head has a sink, which takes part in the softmax and has no key; layers in turn have a window."""
    lmm = llava_of(
        GptOssConfig, head_dim=16, sliding_window=30, num_local_experts=2, num_experts_per_tok=1,
        initializer_range=0.15, rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    )  # fmt: skip
    with torch.no_grad():
        for layer in lmm.model.model.language_model.layers:
            layer.self_attn.sinks.copy_(torch.tensor([-3.0, 0.5, 1.5, 3.0]))
    return lmm


def test_attention_sinks_take_their_share(sinking):
    options = AskOptions(10, selection=Selection(keep="heads"))
    batch = [prepared(sinking, question) for question in QUESTIONS]
    for one, (answer, maps) in zip(batch, sinking.run(batch, options), strict=True):
        expected = eager_maps(sinking, one, answer.token_ids)
        assert_same(maps.maps, expected)
        given = replace(one, answer_ids=torch.tensor(answer.token_ids))
        assert_same(sinking.run([given], options)[0][1].maps, expected)


def test_a_model_with_sinks_says_what_eager_attention_says(sinking):
    eager = copy.deepcopy(sinking.model)
    eager.set_attn_implementation("eager")
    for question in QUESTIONS:
        inputs = prepared(sinking, question).inputs
        with torch.no_grad():
            torch.testing.assert_close(sinking.model(**inputs).logits, eager(**inputs).logits, rtol=1e-4, atol=1e-4)
        answer = eager.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert sinking.run([prepared(sinking, question)], AskOptions(8))[0][0].token_ids == tuple(answer.tolist())


def softmax_rows(query, key, scaling, softcap=None, sinks=None) -> torch.Tensor:
    """[B, H, R, S] in float64, one head after the other."""
    groups = query.shape[1] // key.shape[1]
    scores = query.double() @ key.double().repeat_interleave(groups, 1).transpose(-1, -2) * scaling
    scores = scores if softcap is None else softcap * (scores / softcap).tanh()
    exponentials = scores.exp()
    total = exponentials.sum(-1, keepdim=True)
    return exponentials / (total if sinks is None else total + sinks.double().exp()[:, None, None])


@pytest.mark.parametrize("transient_bytes", [capture.TRANSIENT_BYTES, 3000, 1])
def test_rows_with_a_cap_and_sinks(monkeypatch, transient_bytes):
    """In closed form, whatever part of rows and samples is computed at a time."""
    monkeypatch.setattr(capture, "TRANSIENT_BYTES", transient_bytes)
    torch.manual_seed(0)
    query, key, sinks = torch.randn(3, 4, 5, 8), torch.randn(3, 2, 9, 8), torch.randn(4)
    columns = torch.tensor([[0, 8, 3], [1, 2, 5], [7, 7, 4]])
    for softcap, some in ((None, sinks), (0.8, None), (0.8, sinks)):
        ours = capture.attention_rows(query, key, None, 0.7, columns, softcap, some)
        expected = softmax_rows(query, key, 0.7, softcap, some)
        expected = torch.stack([one[..., chosen] for one, chosen in zip(expected, columns, strict=True)])
        torch.testing.assert_close(ours, expected.float(), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------------------------------ what is averaged


def test_layers_and_heads_are_numbered_from_both_ends():
    lmm = llava_of(LlamaConfig)
    one = prepared(lmm, answer="a dog")
    answer, _ = lmm.run([one])[0]
    expected = eager_maps(lmm, one, answer.token_ids)
    for layers, heads in (((-1,), (0, -1)), ((1, 2, -1), (3,)), (None, (1, 2)), ((0, 1), None)):
        chosen = expected if layers is None else expected[sorted({i % 3 for i in layers})]
        chosen = chosen if heads is None else chosen[:, sorted({i % 4 for i in heads})]
        for keep, axes in (("mean", (0, 1)), ("layers", (1,)), ("heads", ())):
            ours = lmm.run([one], AskOptions(selection=Selection(layers, heads, keep)))[0][1]
            assert_same(ours.maps, chosen.mean(axes) if axes else chosen)
