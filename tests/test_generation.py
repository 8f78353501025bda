"""A checkpoint's own generation settings, and overflow behind the attention: right maps or one clear line."""

import copy

import numpy as np
import pytest
import torch

from aas.capture import AttentionCapture, CaptureError
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.sampling import A_PASS_FOR_EACH_TOKEN, FiniteLogits
from tests import tiny
from tests.test_families import eager_maps

SETTINGS = [
    {"use_cache": False},
    {"prompt_lookup_num_tokens": 2},
    {"assistant_early_exit": 1},
    {"prefill_chunk_size": 7},
    {"guidance_scale": 1.5},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"dola_layers": "high"},
    {"num_beams": 3, "do_sample": True, "num_return_sequences": 2},
    {"force_words_ids": [[5]]},
    {"token_healing": True},
    {"max_time": 1e-9},
    {"stop_strings": ["no such words"]},
    {"cache_implementation": "static"},
    {"cache_implementation": "offloaded_static"},
    {"cache_implementation": "quantized", "cache_config": {"backend": "quanto", "nbits": 4}},
    {"return_dict_in_generate": True, "output_scores": True, "output_logits": True},
    {"output_attentions": True, "output_hidden_states": True, "return_dict_in_generate": True},
]


@pytest.fixture(params=["llava", "qwen2_vl", "paligemma", "mllama", "florence2", "janus"])
def lmm(request) -> LMM:
    """One that may be changed."""
    return copy.deepcopy(tiny.family(request.param))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings))
def test_a_checkpoints_settings_leave_the_maps_as_they_are(lmm, settings):
    one = lmm.prepare(tiny.a_photo(), "What is it?")
    ((plain, _),) = lmm.run([one], AskOptions(6))
    for name, value in settings.items():
        setattr(lmm.model.generation_config, name, value)
    ((answer, maps),) = lmm.run([one], AskOptions(6))
    expected = eager_maps(lmm, one, answer.token_ids).mean((0, 1))
    assert answer.token_ids == plain.token_ids
    assert np.abs(maps.maps - expected).max() <= 1e-5 * expected.max()


@pytest.mark.parametrize("name", ["use_cache", "prefill_chunk_size"])
def test_capture_refuses_passes_that_do_not_add_up(lmm, name):
    if name == "prefill_chunk_size" and lmm.model.config.model_type in ("florence2", "mllama"):
        pytest.skip("its prompt is not cut into chunks")
    value = {"use_cache": False, "prefill_chunk_size": 5}[name]
    one = lmm.prepare(tiny.a_photo(), "What is it?")
    watch = AttentionCapture(one.grids[0].positions[None], records=lmm.records, cross=lmm.cross_attention)
    with pytest.raises(CaptureError, match="generation settings"), lmm.watched(watch):
        lmm.generate(dict(one.inputs), **A_PASS_FOR_EACH_TOKEN | {name: value}, max_new_tokens=4)


@pytest.mark.parametrize("given", [None, "a dog"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_scores_that_are_no_numbers_name_the_precision(family, number, given):
    """The last norm is behind every attention: the maps are finite."""
    lmm = copy.deepcopy(tiny.family(family))
    lmm.model.generation_config.remove_invalid_values = True  # would hide it
    with torch.no_grad():
        lmm.model.model.language_model.norm.weight[0] = number
    with pytest.raises(CaptureError, match=r"not finite numbers.*--dtype bfloat16 or --dtype float32"):
        lmm.ask(tiny.a_photo(), "What is it?", given, AskOptions(3))


def test_forbidden_tokens_are_no_broken_numbers():
    numbers = FiniteLogits()
    numbers.look_at(torch.tensor([[-torch.inf, 0.0, 1.0]]))
    numbers.check()
    for broken in ([torch.nan, 0.0], [torch.inf, 0.0], [-torch.inf, -torch.inf]):
        numbers = FiniteLogits()
        numbers.look_at(torch.tensor([[0.0, 1.0], broken]))
        with pytest.raises(CaptureError):
            numbers.check()
