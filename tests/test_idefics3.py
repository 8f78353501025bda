"""Tiles and their markers."""

import copy

import pytest
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from aas.capture import CaptureError
from aas.lmms.checks import plant_squares
from tests import tiny
from tests.test_families import prepared
from tests.tiny import idefics3
from tests.tiny.idefics3 import TILE_TOKENS


def test_the_prompt_is_that_of_smolvlms_own_processor():
    lmm = tiny.family("smolvlm")
    one = prepared(lmm)
    image = get_image_prompt_string(2, 3, TILE_TOKENS, "<fake_token_around_image>", "<image>", "<global-img>")
    prompt = f"<|im_start|>User:{image}What is it?<end_of_utterance>\nAssistant:"
    assert lmm.tokenizer.decode(one.inputs["input_ids"][0]) == prompt
    assert [(grid.view.name, grid.view.size_hw) for grid in one.grids] == [("tiles", (8, 12)), ("global", (4, 4))]


def test_an_image_that_is_not_split_has_one_view():
    lmm = idefics3.idefics3()
    lmm.processor.image_processor.do_image_splitting = False
    (found,) = plant_squares(lmm, (60, 130))
    assert found.view == "global" and found.separation >= 0.98


def test_a_question_may_speak_of_tiles():
    lmm = tiny.family("idefics3")
    one = lmm.prepare(tiny.a_photo(), "What is in <row_7_col_7>?")
    assert one.grids[0].view.size_hw == (8, 12)


def test_an_incomplete_set_of_tiles_is_refused():
    lmm = tiny.family("idefics3")
    inputs = copy.deepcopy(prepared(lmm).inputs)
    ids = inputs["input_ids"]
    first, second = (lmm.tokenizer.convert_tokens_to_ids(f"<row_1_col_{column}>") for column in (1, 2))
    ids[ids == second] = first
    with pytest.raises(CaptureError, match="not a whole grid"):
        lmm.grids(inputs, (60, 90))
