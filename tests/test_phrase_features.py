"""What a head is given of an LMM, against transformers' own eager attention and hidden states."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from aas.heads.features import HeadShape, PhraseFeatures
from aas.heads.highres import HighResHead, eye_layers, high_eye_layers
from aas.heads.unet import UNetHead
from aas.lmms.base import LMM
from aas.lmms.embedded import MobileTower, MobileTowerConfig
from aas.lmms.eyes import Eyes
from aas.lmms.phrase_features import head_shape, phrase_features
from aas.lmms.prepared import AskOptions
from aas.maps.merge import pointing_maps
from tests import planted, tiny

TEXT, SPANS = "A dog and a cat near a dog", [(2, 5), (10, 15), (21, 26)]
HW = (60, 90)


def features(lmm: LMM, n_views: int = 1, texts: tuple[str, ...] = (TEXT,)) -> list[PhraseFeatures]:
    batch = [lmm.prepare(tiny.a_photo(HW, seed=i), "What is it?", text) for i, text in enumerate(texts)]
    return phrase_features(lmm, head_shape(lmm, n_views), batch, [SPANS] * len(batch), [HW] * len(batch))


@pytest.mark.parametrize("family", ["llava", "deepseek_vl", "gemma3"])
def test_against_eager_attention(family):
    lmm = tiny.family(family)
    (ours,) = features(lmm)
    one = lmm.prepare(tiny.a_photo(HW), "What is it?", TEXT)
    inputs, *_ = lmm.replay_inputs([one], [one.answer_ids], AskOptions(alignment="self"))
    with lmm.eager():
        more = {"output_attentions": True, "output_hidden_states": True, "return_dict": True}
        output = lmm.model(**inputs, **(lmm.forward_arguments(inputs) | more))
    n_prompt = one.inputs["input_ids"].shape[1]
    ids = one.answer_ids.tolist()
    for i, (start, end) in enumerate(SPANS):
        written = [lmm.tokenizer.decode(ids[: n + 1]).lstrip() for n in range(len(ids))]
        ends = [len(text) for text in written]
        begins = [0, *ends[:-1]]
        tokens = [n for n in range(len(ids)) if begins[n] < end and ends[n] > start and ends[n] > begins[n]]
        rows = [n_prompt + n for n in tokens]
        attention = torch.stack([layer[0, :, rows][..., one.grids[0].positions] for layer in output.attentions])
        expected = attention.mean(2).flatten(0, 1).reshape(-1, *one.grids[0].view.size_hw)
        torch.testing.assert_close(ours.attention[i], expected.float(), rtol=1e-4, atol=1e-6)
        states = torch.stack([layer[0, rows] for layer in output.hidden_states[1:]])
        torch.testing.assert_close(ours.states[i], states.float(), rtol=1e-4, atol=1e-5)
    assert ours.view == one.grids[0].view


def test_batches_are_singles():
    lmm = tiny.family("llava")
    texts = (TEXT, TEXT + " on a bench by a tree", TEXT + ".")
    together = features(lmm, texts=texts)
    for i, text in enumerate(texts):
        batch = [lmm.prepare(tiny.a_photo(HW, seed=i), "What is it?", text)]
        (alone,) = phrase_features(lmm, head_shape(lmm), batch, [SPANS], [HW])
        torch.testing.assert_close(alone.attention, together[i].attention, rtol=1e-4, atol=1e-6)
        for one, other in zip(alone.states, together[i].states, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_comes_later_is_not_seen():
    """F-LMM's and HG-LMM's library lost the causal mask in some versions; then each row would see all that follows."""
    lmm = tiny.family("llava")
    (one,), (other,) = features(lmm, texts=(TEXT,)), features(lmm, texts=(TEXT + ", both of them asleep",))
    torch.testing.assert_close(one.attention, other.attention, rtol=1e-4, atol=1e-6)
    for states, others in zip(one.states, other.states, strict=True):
        torch.testing.assert_close(states, others, rtol=1e-4, atol=1e-5)


def test_coarse_maps_stand_in_front_of_fine_ones():
    lmm = tiny.family("llava_next")
    one = lmm.prepare(tiny.a_photo(HW), "What is it?", TEXT)
    (ours,) = features(lmm, n_views=2)
    (coarse,) = features(lmm)
    shape = head_shape(lmm, 2)
    assert shape.n_channels == 2 * head_shape(lmm).n_channels == ours.attention.shape[1]
    assert ours.view == one.grids[-1].view != coarse.view
    half = shape.n_channels // 2
    # Spread over finer cells, the coarse maps keep their mean; the fine ones lie as they were.
    assert (
        torch.corrcoef(
            torch.stack([ours.attention[:, :half].mean((2, 3)).ravel(), coarse.attention.mean((2, 3)).ravel()])
        )[0, 1]
        > 0.9
    )


def test_a_head_takes_what_was_captured():
    lmm = tiny.family("llava")
    head = UNetHead(head_shape(lmm), width=8, side=16).eval()
    assert head.shape == HeadShape(3, 4, 64, 1, 56)
    ((logits,),) = head(features(lmm))
    assert logits.values.shape == (3, 16, 16) and logits.on_image(HW).shape == (3, *HW)


def test_what_cannot_be_captured_is_refused():
    lmm = tiny.family("llava")
    prepared = lmm.prepare(tiny.a_photo(HW), "What is it?", TEXT)
    with pytest.raises(ValueError, match="No token writes characters 99 to 104"):
        phrase_features(lmm, head_shape(lmm), [prepared], [[(99, 104)]], [HW])
    with pytest.raises(ValueError, match="made for 2 views of an image; of this one there are 1"):
        phrase_features(lmm, head_shape(lmm, 2), [prepared], [SPANS], [HW])
    with pytest.raises(ValueError, match="of a given text"):
        phrase_features(lmm, head_shape(lmm), [lmm.prepare(tiny.a_photo(HW), "What?")], [SPANS], [HW])
    with pytest.raises(ValueError, match="cross-attention"):
        head_shape(tiny.family("mllama"))


def test_images_without_phrases_have_none():
    lmm = tiny.family("llava")
    prepared = lmm.prepare(tiny.a_photo(HW), "What is it?", TEXT)
    (none,) = phrase_features(lmm, head_shape(lmm), [prepared], [[]], [HW])
    assert none.attention.shape == (0, 12, 4, 4) and none.states == ()


@pytest.mark.parametrize("family", ["llava", "deepseek_vl"])
def test_eyes_are_the_layers_as_the_model_projects_them(family):
    lmm = tiny.family(family)
    photo = tiny.a_photo(HW)
    batch = [lmm.prepare(tiny.a_photo(HW, seed=1), "What?", TEXT), lmm.prepare(photo, "What?", TEXT)]
    ours = phrase_features(lmm, head_shape(lmm), batch, [SPANS] * 2, [HW] * 2, with_eyes=True)[1]
    pixels = batch[1].inputs["pixel_values"]
    inner = lmm.model.model
    tower, project = (
        (inner.vision_tower, inner.multi_modal_projector) if family == "llava" else (inner.vision_model, inner.aligner)
    )
    with torch.no_grad():
        states = tower(pixels, output_hidden_states=True, return_dict=True).hidden_states
        n_cells = ours.view.size_hw[0] * ours.view.size_hw[1]
        n_layers = len(states) - 1
        expected = [
            project(states[i + 1][:, -n_cells:])[0].T.unflatten(1, ours.view.size_hw) for i in eye_layers(n_layers)
        ]
    assert torch.equal(ours.pixels, pixels[0])
    torch.testing.assert_close(ours.eyes, torch.stack(expected), rtol=1e-4, atol=1e-5)
    head = HighResHead(head_shape(lmm), width=16).eval()
    assert head([ours])[0][0].values.isfinite().all()


def test_eyes_of_two_encoders_are_projected_in_pairs():
    """As DeepSeek-VL-7B has them: blocks of the second encoder through its neck, to the first one's cells."""
    lmm, photo = tiny.family("deepseek_vl_hybrid"), tiny.a_photo(HW)
    batch = [lmm.prepare(tiny.a_photo(HW, seed=1), "What?", TEXT), lmm.prepare(photo, "What?", TEXT)]
    ours = phrase_features(lmm, head_shape(lmm), batch, [SPANS] * 2, [HW] * 2, with_eyes=True)[1]
    inputs, inner = batch[1].inputs, lmm.model.model
    with torch.no_grad():
        low = inner.vision_model(inputs["pixel_values"], output_hidden_states=True).hidden_states[1:]
        sam = inner.high_res_vision_model
        x = sam.vision_encoder.patch_embed(inputs["high_res_pixel_values"]) + sam.vision_encoder.pos_embed
        high = [x := block(x) for block in sam.vision_encoder.layers]
        pairs = zip(eye_layers(len(low)), high_eye_layers(len(high)), strict=True)
        cells = [(low[i], inner.high_res_vision_proj(sam.vision_encoder.neck(high[k])).flatten(2).mT) for i, k in pairs]
        expected = [inner.aligner(*pair)[0].T.unflatten(1, ours.view.size_hw) for pair in cells]
    torch.testing.assert_close(ours.eyes, torch.stack(expected), rtol=1e-4, atol=1e-5)
    assert high_eye_layers(12) == (1, 2, 4, 5, 7, 9, 10, 11), "the published ones"
    assert ours.pixels.shape == (3, 128, 128) and ours.pixels.min() >= -0.1 and ours.pixels.max() <= 1.1
    assert HighResHead(head_shape(lmm), width=16).eval()([ours])[0][0].values.isfinite().all()


def test_eyes_of_a_convolutional_encoder_are_means_of_its_blocks():
    """No projector fits them: the head has one for each, and channels that a block lacks count nothing."""
    config = MobileTowerConfig(image_size=64)
    torch.manual_seed(0)
    model = SimpleNamespace(vision_tower=MobileTower(config).eval(), multi_modal_projector=nn.Identity())
    pixels = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), Eyes(model, eye_layers) as eyes:
        model.multi_modal_projector(model.vision_tower(pixels).last_hidden_state)
    ours = eyes.of_image(1, (2, 2))
    with torch.no_grad():
        x = model.vision_tower.backbone.stem(pixels[1:])
        blocks = [x := block(x) for block in model.vision_tower.backbone.blocks]
    assert ours.shape == (8, 320, 2, 2) and config.block_widths[:3] == (16, 24, 24)
    for layer, i in zip(ours, eye_layers(17), strict=True):
        wide, side = blocks[i].shape[1], blocks[i].shape[2] // 2
        expected = blocks[i][0].unfold(1, side, side).unfold(2, side, side).mean((3, 4))
        torch.testing.assert_close(layer[:wide], expected, rtol=1e-4, atol=1e-5)
        assert not layer[wide:].any()
    shape = replace(planted.SHAPE, input_side=64, eye_width=320)
    head, seen = HighResHead(shape, width=16).eval(), replace(planted.features(0, shape), eyes=ours.repeat(1, 1, 4, 4))
    with torch.no_grad():
        before = head([seen])[0][0].values
        head.eyes.projections[0].weight[:, 24:] += 1.0  # block 2 has 24 channels
        assert torch.equal(head([seen])[0][0].values, before)
        head.eyes.projections[0].weight[:, :24] += 1.0
        assert not torch.equal(head([seen])[0][0].values, before)


def test_eyes_that_cannot_be_looked_through_are_refused():
    for family, reason in (("qwen2_vl", "no stack of blocks with a projector"), ("llava_next", "cuts its images")):
        lmm = tiny.family(family)
        prepared = lmm.prepare(tiny.a_photo(HW), "What?", TEXT)
        with pytest.raises(ValueError, match=reason):
            phrase_features(lmm, head_shape(lmm), [prepared], [SPANS], [HW], with_eyes=True)


def test_maps_of_sources_are_those_that_point():
    """Beside them states stay those of the phrase's own tokens, and attention is of the rows that the sources need."""
    lmm, sources = tiny.family("llava"), ("mean", "tam", "attribution:attention")
    photo = tiny.a_photo(HW)
    prepared = lmm.prepare(photo, "What is it?", TEXT)
    (ours,) = phrase_features(lmm, head_shape(lmm), [prepared], [SPANS], [HW], sources=sources)
    answer, maps = lmm.ask(photo, "What is it?", TEXT, AskOptions(maps=sources))
    tokens = [
        [i for i, span in enumerate(answer.token_spans) if span[0] < end and span[1] > start] for start, end in SPANS
    ]
    for i, name in enumerate(sources):
        _, expected = pointing_maps(maps.of(name), tokens, "mean", None)
        torch.testing.assert_close(ours.maps[:, i], torch.from_numpy(np.stack(expected)), rtol=1e-4, atol=1e-6)
    (plain,) = features(lmm)
    for one, other in zip(ours.states, plain.states, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert plain.maps is None and not torch.equal(ours.attention, plain.attention)
    with pytest.raises(ValueError, match="of one view"):
        phrase_features(lmm, head_shape(lmm, 2), [prepared], [SPANS], [HW], sources=sources)
