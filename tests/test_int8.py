"""Weights in 8 bits: what is written, what comes back, and models that load from it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SamImageProcessorPil

from aas import int8
from aas.lmms import load_lmm
from aas.model_files import INT8_FILE
from aas.segmenters import load_segmenter
from tests.test_embedded_segmenter import SIDE, tiny_model

QUESTION = "What is it?"


def test_a_weight_is_off_by_half_a_step_of_its_channel():
    torch.manual_seed(0)
    state = {"linear": torch.randn(5, 7) * torch.logspace(-6, 6, 5)[:, None], "conv": torch.randn(4, 3, 2, 2)}
    state |= {"bias": torch.randn(5), "zeros": torch.zeros(2, 3), "half": torch.randn(3, 4).half()}
    tensors = int8.packed(state)
    found = int8.unpacked(tensors)
    assert found.keys() == state.keys() and tensors["linear"].dtype == torch.int8
    assert torch.equal(found["conv"], state["conv"].half().float())
    assert torch.equal(found["bias"], state["bias"]) and torch.equal(found["zeros"], state["zeros"])
    for name in ("linear", "half"):
        weight = state[name].float().flatten(1)
        half_a_step = weight.abs().amax(1, keepdim=True) / 127 / 2
        assert ((found[name].flatten(1) - weight).abs() <= half_a_step * 1.001).all()
        assert torch.equal(int8.unpacked(int8.packed(found))[name], found[name])  # again is the same


@pytest.fixture(scope="module")
def lmm():
    return load_lmm("embedded", "cpu")


def test_an_lmm_loads_from_it(lmm, tmp_path):
    int8.save(lmm.model, tmp_path)
    lmm.processor.save_pretrained(tmp_path)
    found = load_lmm(str(tmp_path), "cpu")
    expected = int8.unpacked(int8.packed(lmm.model.state_dict()))
    for name, weight in found.model.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, expected[name]), name
    assert found.model.generation_config.to_dict() == lmm.model.generation_config.to_dict()
    as_float16 = 2 * sum(weight.numel() for weight in lmm.model.parameters())  # tied weights once
    assert (tmp_path / INT8_FILE).stat().st_size < 0.75 * as_float16
    assert "lm_head.weight" not in load_file(tmp_path / INT8_FILE)
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    text = "A dog on a bench."
    ours, theirs = (one.ask(image, QUESTION, text)[1].maps for one in (found, lmm))
    assert np.abs(ours - theirs).max() < 0.02 * theirs.max()  # of noise; of photographs 0.006


def test_a_segmenter_loads_from_it(tmp_path):
    model = tiny_model(8)
    int8.save(model, tmp_path)
    square = {"height": SIDE, "width": SIDE}
    SamImageProcessorPil(size={"longest_edge": SIDE}, pad_size=square).save_pretrained(tmp_path)
    found = load_segmenter(str(tmp_path), "cpu")
    expected = int8.unpacked(int8.packed(model.state_dict()))
    for name, weight in found.model.state_dict().items():
        assert torch.equal(weight, expected[name]), name


def test_a_cut_file_is_named(lmm, tmp_path):
    int8.save(lmm.model, tmp_path)
    lmm.processor.save_pretrained(tmp_path)
    file = tmp_path / INT8_FILE
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{INT8_FILE} is damaged or cut off"):
        load_lmm(str(tmp_path), "cpu")
