"""Edges that few models come to: what capture refuses, non-causal attention, layouts, and what is counted twice."""

import copy

import numpy as np
import pytest
import torch
from tokenizers import decoders
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llava_next.modeling_llava_next import unpad_image

from aas import capture, rle
from aas.capture import AttentionCapture, CaptureError, Selection
from aas.geometry import padded_view, peaks_xy, unpadded_view
from aas.lmms.base import LMM
from aas.lmms.llava import Llava
from aas.lmms.prepared import AskOptions
from aas.phrases.alignment import decode_with_spans
from aas.records import View
from tests import tiny
from tests.test_families import assert_same
from tests.tiny import tokenizers
from tests.tiny.llava import llava

QUESTIONS = ["What is it?", "Who sits on the wooden bench near the old tree?"]


def lmm_of_its_own() -> Llava:
    model, processor = llava()
    model.generation_config.eos_token_id = None
    return Llava(model, processor, "tiny")


# ------------------------------------------------------------------------------------------ capture


def test_one_infinite_step_of_many_is_told(monkeypatch):
    """Of the last layer and the first step: all that follow are finite."""
    monkeypatch.setattr(capture, "STASHED_STEPS", 2)
    lmm, calls = lmm_of_its_own(), []

    def infinite_at_first(module, arguments, output):
        calls.append(output)
        return output * torch.inf if len(calls) == 1 else output

    lmm.model.model.language_model.layers[-1].self_attn.q_proj.register_forward_hook(infinite_at_first)
    with pytest.raises(CaptureError, match="layer 2"):
        lmm.run([lmm.prepare(tiny.a_photo(), QUESTIONS[0])], AskOptions(8))
    assert len(calls) == 8


def test_layers_without_attention_to_the_image_are_told():
    """Of Mllama only the layers with cross-attention have any."""
    lmm = tiny.family("mllama")
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0], "a dog")
    across = lmm.text_config.cross_attention_layers
    alone = next(i for i in range(lmm.text_config.num_hidden_layers) if i not in across)
    known = ", ".join(map(str, across))
    with pytest.raises(CaptureError, match=rf"Layer {alone} has no attention .*: {known}"):
        lmm.run([one], AskOptions(selection=Selection(layers=(across[0], alone))))
    assert lmm.run([one], AskOptions(selection=Selection(layers=(across[0],))))[0][1].maps.any()


def test_position_biases_are_refused():
    """They would be missing in the rows."""
    lmm = lmm_of_its_own()
    layer = lmm.model.model.language_model.layers[0].self_attn
    query, bias = torch.randn(1, 4, 3, 16), torch.zeros(1, 4, 3, 3)
    with lmm.watched(AttentionCapture(torch.zeros(1, 1, dtype=torch.int64))):
        attention = ALL_ATTENTION_FUNCTIONS[lmm.text_config._attn_implementation]
        attention(layer, query, query[:, :2], query[:, :2], None)
        with pytest.raises(CaptureError, match="position bias"):
            attention(layer, query, query[:, :2], query[:, :2], None, position_bias=bias)


def flash_like(module, query, key, value, attention_mask, scaling=None, is_causal=None, **kwargs):
    """Told of padding by a mask [B, S] or None, and of causality by the module, as flash kernels are."""
    is_causal = module.is_causal if is_causal is None else is_causal
    n_queries, n_keys = query.shape[2], key.shape[2]
    visible = torch.ones(n_queries, n_keys, dtype=torch.bool)
    visible = (visible.tril(n_keys - n_queries) if is_causal else visible)[None, None]
    if attention_mask is not None:
        assert attention_mask.ndim == 2
        visible = visible & attention_mask[:, None, None, :].bool()
    scores = (query @ key.transpose(-1, -2) * (scaling or query.shape[-1] ** -0.5)).masked_fill(~visible, -1e9)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


@pytest.mark.parametrize("n_images", [1, 2])
def test_cross_attention_beside_a_flash_kernel(n_images):
    """Every query sees every key of the image, padding apart; alone there is no mask at all."""
    AttentionInterface.register("flash_like_across", flash_like)
    AttentionMaskInterface.register("flash_like_across", flash_attention_mask)
    plain: LMM = tiny.family("florence2")
    flash = type(plain)(copy.deepcopy(plain.model), plain.processor, "flash")
    flash.model.set_attn_implementation({"text_config": "flash_like_across"})
    options = AskOptions(6, selection=Selection(keep="heads"))
    for answer in (None, "a dog and a cat"):
        batch = [plain.prepare(tiny.a_photo(seed=i), QUESTIONS[i], answer) for i in range(n_images)]
        for ours, expected in zip(flash.run(batch, options), plain.run(batch, options), strict=True):
            assert ours[0] == expected[0]
            assert_same(ours[1].maps, expected[1].maps)


def test_a_layer_that_is_named_twice_counts_once():
    lmm = lmm_of_its_own()
    one = lmm.prepare(tiny.a_photo(), QUESTIONS[0], "a dog")
    for keep in ("mean", "layers", "heads"):
        twice = lmm.run([one], AskOptions(selection=Selection((0, -3, 1), (1, -3, 2), keep)))[0][1].maps
        once = lmm.run([one], AskOptions(selection=Selection((0, 1), (1, 2), keep)))[0][1].maps
        np.testing.assert_array_equal(twice, once)


# ------------------------------------------------------------------------------------------ layouts


@pytest.mark.parametrize("grid_hw", [(8, 8), (24, 24), (48, 24), (24, 48), (72, 24), (27, 54)], ids=str)
def test_padding_is_dropped_as_the_model_drops_it(grid_hw):
    """transformers' own code, for every size whose product with the ratio is next to a whole number, and others."""
    rows, columns = grid_hw
    sizes = {(a * k, b * k) for a in range(1, 25) for b in range(1, 25) for k in (1, 3, 7, 10, 49)}
    view = View(grid_hw, (-3.0, 2.0, 3.0 * columns - 3, 5.0 * rows + 2))
    features = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"))
    for image_hw in sizes:
        kept = unpad_image(features, image_hw)
        if not kept.numel():
            continue
        ours = unpadded_view(view, image_hw)
        (top, left), (bottom, right) = kept[:, 0, 0].tolist(), (kept[:, -1, -1] + 1).tolist()
        assert ours.size_hw == tuple(kept.shape[1:]), image_hw
        expected = (3 * left - 3, 5 * top + 2, 3 * right - 3, 5 * bottom + 2)
        assert ours.box_xyxy == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_peaks_lie_two_cells_apart(seed):
    """Pixels, not only cells: two neighbouring peaks may lean towards each other."""
    rng = np.random.default_rng(seed)
    view, image_hw = View((9, 9), (0.0, 0.0, 180.0, 90.0)), (90, 180)
    n_near = 0
    for _ in range(40):
        grid_map = rng.random((9, 9)).astype(np.float32)
        peaks = np.array(peaks_xy(grid_map, view, image_hw, 20)) / (20, 10)  # in cells
        far = np.hypot(*(peaks[:, None] - peaks[None]).transpose(2, 0, 1)) + 9 * np.eye(len(peaks))
        assert len(peaks) > 2 and far.min() >= 2 - 1e-9
        n_near += len(peaks_xy(grid_map, view, image_hw, 20, apart=0.0)) > len(peaks)
    assert n_near, "some are left out for that"


def test_peaks_are_those_of_the_map_whatever_its_level():
    """What counts as a peak lies between the smallest and the largest cell: a constant changes nothing."""
    view, image_hw = View((9, 9), (0.0, 0.0, 180.0, 90.0)), (90, 180)
    for seed in range(20):
        grid_map = np.random.default_rng(seed).random((9, 9)).astype(np.float32)
        peaks = peaks_xy(grid_map, view, image_hw, 20)
        for level in (-3.0, 3.0):
            assert peaks_xy(grid_map + np.float32(level), view, image_hw, 20) == peaks


def test_attention_to_padding_hides_no_peak():
    """Neither by its height nor as a neighbour."""
    view, image_hw = padded_view((12, 12), (60, 120)), (60, 120)  # cells of 10 pixels, three rows of padding each
    grid_map = np.zeros((12, 12), np.float32)
    grid_map[4, 2], grid_map[7, 8] = 1.0, 0.8
    alone = peaks_xy(grid_map, view, image_hw, 5)
    assert [(y // 10 + 3, x // 10) for x, y in alone] == [(4, 2), (7, 8)]
    grid_map[0, 5] = grid_map[11, 1] = 50.0
    assert peaks_xy(grid_map, view, image_hw, 5) == alone
    grid_map[3, 10], grid_map[2, 10] = 0.9, 1.0  # a row of the image beside one of padding
    cells = {(y // 10 + 3, x // 10) for x, y in peaks_xy(grid_map, view, image_hw, 5)}
    assert cells == {(4, 2), (3, 10), (7, 8)}


# ------------------------------------------------------------------------------------------ tokens


def test_a_decoder_that_drops_several_spaces_drops_none_within_a_text():
    """Each token is decoded behind something visible: the spaces in the middle are the text's own."""
    tokenizer = tokenizers.metaspace(leading_space=True)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 4, 0)]
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(steps)
    words = ["▁a", "▁", "▁", "▁", "b", "▁", "▁c"]
    ids = tokenizer.convert_tokens_to_ids(words)
    assert tokenizer.unk_token_id not in ids
    text, spans = decode_with_spans(tokenizer, ids)
    assert text == tokenizer.decode(ids) == "a   b  c"
    assert spans == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 8)]


# ------------------------------------------------------------------------------------------ run lengths


def test_runs_that_say_that_more_follows_are_refused():
    """All pixels are told, but the last character is marked as one of several: pycocotools would read on."""
    mask = np.random.default_rng(0).random((30, 40)) > 0.5
    whole = rle.of_mask(mask)
    assert rle.compressed(whole, (30, 40)) == whole
    counts = whole["counts"]
    with pytest.raises(ValueError, match="cut off"):
        rle.compressed(whole | {"counts": counts[:-1] + chr(ord(counts[-1]) + 32)}, (30, 40))


def test_the_box_of_a_mask():
    mask = np.zeros((30, 40), bool)
    assert rle.box_xyxy(mask) == (0, 0, 0, 0)
    mask[3, 7] = True
    assert rle.box_xyxy(mask) == (7, 3, 8, 4)
    mask[29, 0] = True
    assert rle.box_xyxy(mask) == (0, 3, 8, 30)
