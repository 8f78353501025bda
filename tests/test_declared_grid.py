"""Model types without a file of their own: what they must declare, and what they and the refused ones are told."""

import json

import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    Gemma3ImageProcessorPil,
    Qwen2VLImageProcessorPil,
    SiglipImageProcessorPil,
)

from aas.capture import CaptureError
from aas.lmms import load_lmm
from aas.lmms.declared_grid import DeclaredGrid
from aas.lmms.llava import Llava
from aas.registry import LMM_REFUSED
from tests import tiny
from tests.tiny.llava import llava

SIDE = {"height": 56, "width": 56}
CROP = CLIPImageProcessorPil(size={"shortest_edge": 60}, crop_size=SIDE)
STRETCH = SiglipImageProcessorPil(size=SIDE)


@pytest.mark.parametrize("image_processor", [CROP, STRETCH], ids=["crop", "stretch"])
@pytest.mark.parametrize("size_hw", [(60, 90), (91, 60)])
def test_a_declared_grid_is_that_of_the_family(image_processor, size_hw):
    model, processor = llava()
    processor.image_processor = image_processor
    known, declared = Llava(model, processor, "llava"), DeclaredGrid(model, processor, "declared")
    image = tiny.a_photo(size_hw)
    (expected,), (grid,) = known.prepare(image, "Who?").grids, declared.prepare(image, "Who?").grids
    assert grid.view == expected.view
    assert torch.equal(grid.positions, expected.positions)


def test_a_layout_that_does_not_fit_is_an_error():
    model, processor = llava()
    lmm = DeclaredGrid(model, processor, "declared")
    image = tiny.a_photo()
    inputs = lmm.inputs(image, "Who?")
    one_more = torch.cat([inputs["input_ids"], torch.tensor([[3]])], dim=1)
    with pytest.raises(CaptureError, match="17 image tokens where a grid of 4 x 4"):
        lmm.grids(dict(inputs, input_ids=one_more), image.shape[:2])
    last = int(lmm.image_positions(inputs)[-1])
    apart = inputs["input_ids"].clone()
    apart[0, [last, last + 1]] = apart[0, [last + 1, last]]
    with pytest.raises(CaptureError, match="not one run"):
        lmm.grids(dict(inputs, input_ids=apart), image.shape[:2])
    with pytest.raises(CaptureError, match="types"):
        lmm.grids(dict(inputs, token_type_ids=apart), image.shape[:2])
    processor.image_processor.do_center_crop = False
    with pytest.raises(CaptureError, match="CLIPImageProcessorPil fits"):
        lmm.grids(inputs, image.shape[:2])


@pytest.mark.parametrize(
    ("image_processor", "vision", "reason"),
    [
        (Gemma3ImageProcessorPil(), {}, "Gemma3ImageProcessor is not one whose layout is known"),
        (STRETCH, {"patch_size": None}, "lacks image_size or patch_size"),
        (Qwen2VLImageProcessorPil(), {"patch_size": None}, None),
    ],
)
def test_what_is_not_declared_is_refused_before_the_weights(image_processor, vision, reason, tmp_path):
    model, processor = llava()
    model.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    processor.image_processor = image_processor
    processor.save_pretrained(tmp_path)
    config["vision_config"] = {**config["vision_config"], **vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if reason is None:
        assert type(DeclaredGrid.load_processor(str(tmp_path), "main").image_processor) is type(image_processor)
        return
    with pytest.raises(ValueError, match=rf"{reason}.*Families: .*llava.*docs/adding-a-model.md"):
        DeclaredGrid.load_processor(str(tmp_path), "main")


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("no_such_model", "transformers does not know it"),
        ("llama", "its config has no text_config"),
        ("t5", "an encoder and a decoder"),
    ],
)
def test_an_unknown_model_type_is_told_the_families(model_type, reason, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=rf"'{model_type}': .*{reason}.*Families: .*llava.*docs/adding-a-model.md"):
        load_lmm(str(tmp_path))


@pytest.mark.parametrize("model_type", LMM_REFUSED)
def test_models_without_places_are_refused(model_type, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ValueError, match=rf"'{model_type}' are refused: .*learned queries"):
        load_lmm(str(tmp_path))
