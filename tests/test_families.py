"""Every family of LMMs against eager attention, transformers' own independent path, on tiny random models."""

import copy
import sys

import numpy as np
import pytest
import torch

from aas.capture import Selection
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.checks import compare_with_eager, plant_squares
from aas.lmms.prepared import AskOptions, Prepared
from tests import tiny

SIZES_HW = [(60, 90), (90, 60), (64, 64), (41, 130)]
QUESTIONS = ["What is it?", "Describe the image in detail.", "Who?", "Two people ride along the street?"]
N_NEW = 6


@pytest.fixture(params=list(tiny.FAMILIES))
def lmm(request) -> LMM:
    return tiny.family(request.param)


def prepared(lmm: LMM, which: int = 0) -> Prepared:
    return lmm.prepare(tiny.a_photo(SIZES_HW[which], seed=which), QUESTIONS[which])


def eager_attention(
    lmm: LMM, one: Prepared, token_ids: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """[layers, heads, Q, S] over the prompt and all tokens of the answer, by output_attentions=True."""
    builder = sys.modules[tiny.FAMILIES[lmm.name.removeprefix("tiny ")].split(":")[0]]
    model = copy.deepcopy(lmm.model).to(dtype)
    model.set_attn_implementation("eager")
    inputs = lmm.with_answer(one.inputs, torch.tensor(token_ids))
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.no_grad():
        output = model(**inputs, **lmm.forward_arguments(inputs), output_attentions=True)
    attentions = builder.attentions(output) if hasattr(builder, "attentions") else output.attentions
    return torch.stack(list(attentions))[:, 0]


def eager_maps(
    lmm: LMM,
    one: Prepared,
    token_ids: tuple[int, ...],
    alignment: str = "predict",
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """[layers, heads, tokens, h, w] of the first view."""
    attention = eager_attention(lmm, one, token_ids, dtype)
    inputs = lmm.with_answer(one.inputs, torch.tensor(token_ids))
    rows = lmm.answer_rows(inputs, [torch.tensor(token_ids)], alignment)[0]
    grid = one.grids[0]
    return attention[:, :, rows][..., grid.positions].unflatten(-1, grid.view.size_hw).numpy()


def assert_same(ours: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert ours.shape == expected.shape
    assert np.abs(ours - expected).max() <= tolerance * np.abs(expected).max()


def test_generation_equals_eager(lmm):
    one = prepared(lmm)
    ((answer, maps),) = lmm.run([one], AskOptions(N_NEW))
    assert len(answer.token_ids) > 1 and maps.maps.shape[1:] == one.grids[0].view.size_hw
    expected, tolerance = eager_maps(lmm, one, answer.token_ids).mean((0, 1)), 1e-5
    # Two float32 ways may be 1.2e-5 apart (Idefics3): then float64 decides, which eager float32 is as far from.
    if np.abs(maps.maps - expected).max() > 1e-5 * np.abs(expected).max():
        exact = eager_maps(lmm, one, answer.token_ids, dtype=torch.float64).mean((0, 1))
        rounding = np.abs(expected - exact).max() / exact.max()
        expected, tolerance = exact, max(tolerance, 1.5 * rounding)
    assert_same(maps.maps, expected, tolerance)


def test_every_layer_and_head_equals_eager(lmm):
    one = prepared(lmm)
    ((answer, heads),) = lmm.run([one], AskOptions(3, selection=Selection(keep="heads")))
    assert_same(heads.maps, eager_maps(lmm, one, answer.token_ids))
    ((_, layers),) = lmm.run([one], AskOptions(3, selection=Selection(heads=(-2,), keep="layers")))
    assert_same(layers.maps, heads.maps[:, -2])


def test_generation_is_what_plain_attention_generates(lmm):
    one = prepared(lmm)
    ((answer, _),) = lmm.run([one], AskOptions(N_NEW))
    plain = copy.deepcopy(lmm.model)
    plain.set_attn_implementation("eager")
    sequence = plain.generate(**one.inputs, max_new_tokens=N_NEW, do_sample=False)[0, -len(answer.token_ids) :]
    assert tuple(sequence.tolist()) == answer.token_ids


def test_generation_equals_replay(lmm):
    one = prepared(lmm)
    ((answer, maps),) = lmm.run([one], AskOptions(N_NEW))
    given = Prepared(one.question, one.inputs, one.grids, torch.tensor(answer.token_ids))
    ((_, again),) = lmm.run([given])
    assert_same(again.maps, maps.maps)
    ((_, self_maps),) = lmm.run([given], AskOptions(alignment="self"))
    assert_same(self_maps.maps, eager_maps(lmm, one, answer.token_ids, "self").mean((0, 1)))


def test_a_batch_equals_its_singles(lmm):
    batch = [prepared(lmm, i) for i in range(4)]
    assert len({one.length for one in batch}) > 1, "different lengths, so that there is padding"
    together = lmm.run(batch, AskOptions(N_NEW))
    for one, (answer, maps) in zip(batch, together, strict=True):
        ((alone, maps_alone),) = lmm.run([one], AskOptions(N_NEW))
        assert answer.token_ids == alone.token_ids
        assert_same(maps.maps, maps_alone.maps)
    texts = ["a dog", "two people ride bicycles along the street", "a cat", "a wooden bench near the old tree"]
    given = [lmm.prepare(tiny.a_photo(SIZES_HW[i], seed=i), QUESTIONS[i], texts[i]) for i in range(4)]
    for one, (_, maps) in zip(given, lmm.run(given), strict=True):
        assert_same(maps.maps, lmm.run([one])[0][1].maps)


@pytest.mark.parametrize("size_hw", [(64, 64), (60, 130), (150, 70)], ids=["square", "wide", "tall"])
def test_planted_squares_are_where_the_geometry_says(lmm, size_hw):
    for found in plant_squares(lmm, size_hw):
        assert found.separation >= 0.98, found


def test_the_doctor_finds_capture_equal_to_eager(lmm):
    found = compare_with_eager(lmm, tiny.a_photo((60, 90)), "What is it?", N_NEW)
    assert found.tokens > 1 and found.difference <= 1e-5


def test_loads_from_a_folder(lmm, tmp_path):
    tiny.saved(lmm, tmp_path)
    loaded = load_lmm(str(tmp_path))
    assert type(loaded) is type(lmm)
    one, again = prepared(lmm), prepared(loaded)
    assert one.inputs.keys() == again.inputs.keys()
    for key, value in one.inputs.items():
        torch.testing.assert_close(again.inputs[key], value, rtol=0, atol=0)
    ((answer, maps),) = lmm.run([one], AskOptions(N_NEW))
    ((loaded_answer, loaded_maps),) = loaded.run([again], AskOptions(N_NEW))
    assert loaded_answer == answer
    assert_same(loaded_maps.maps, maps.maps)
