"""Families whose image is padded, tiled or attended to across: what the checks of every family cannot see."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.mllama.image_processing_pil_mllama import (
    get_image_size_fit_to_canvas,
    get_optimal_tiled_canvas,
)

from aas.geometry import canvas_view, long_side_padded_view
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.prepared import AskOptions
from aas.lmms.sampling import Sampling
from tests import tiny

FAMILIES = ["chameleon", "deepseek_vl", "deepseek_vl_hybrid", "florence2", "janus", "mllama"]
SIZES_HW = np.random.default_rng(0).integers(1, 700, (200, 2)).tolist()


def save_as_on_the_hub(lmm: LMM, folder: Path) -> None:
    """What was published before processor_config.json held every part, and by machines with torchvision."""
    tiny.saved(lmm, folder)
    processor = json.loads((folder / "processor_config.json").read_text())
    image = processor.pop("image_processor")
    image["image_processor_type"] = image["image_processor_type"].removesuffix("Pil")
    image["processor_class"] = processor["processor_class"]
    (folder / "processor_config.json").write_text(json.dumps(processor))
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    template = folder / "chat_template.jinja"
    if template.exists():
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
        template.unlink()


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_what_is_on_the_hub(family, tmp_path):
    lmm = tiny.family(family)
    save_as_on_the_hub(lmm, tmp_path)
    loaded = load_lmm(str(tmp_path))
    assert type(loaded) is type(lmm)
    image = tiny.a_photo((70, 90))
    one, again = lmm.prepare(image, "Who?"), loaded.prepare(image, "Who?")
    assert one.inputs.keys() == again.inputs.keys()
    for key, value in one.inputs.items():
        torch.testing.assert_close(again.inputs[key], value, rtol=0, atol=0)
    assert [grid.view for grid in one.grids] == [grid.view for grid in again.grids]


def test_mllama_fits_an_image_into_its_canvas():
    for height, width in SIZES_HW:
        canvas_hw = tuple(int(n) for n in get_optimal_tiled_canvas(height, width, 4, 56))
        resized_h, resized_w = get_image_size_fit_to_canvas(height, width, *canvas_hw, 56)
        x0, y0, x1, y1 = canvas_view((4, 4), (height, width), canvas_hw, 56).box_xyxy
        expected = canvas_hw[1] * width / resized_w, canvas_hw[0] * height / resized_h
        assert (x0, y0) == (0, 0) and (x1, y1) == pytest.approx(expected, abs=1e-9)


def test_deepseek_pads_an_image_to_a_square():
    image_processor = tiny.family("deepseek_vl").processor.image_processor
    marked = image_processor.background_color
    for height, width in SIZES_HW[:40]:
        resized = image_processor.resize(np.full((3, height, width), 255, np.uint8), image_processor.size, 14)
        padded = image_processor.pad_to_square(resized, marked)
        inside = (padded != np.array(marked)[:, None, None]).all(0)
        rows, columns = inside.any(1).nonzero()[0], inside.any(0).nonzero()[0]
        x0, y0, x1, y1 = long_side_padded_view((4, 4), (height, width), 64, 14).box_xyxy
        scale_x, scale_y = padded.shape[2] / (x1 - x0), padded.shape[1] / (y1 - y0)
        image_box = [-x0 * scale_x, -y0 * scale_y, (width - x0) * scale_x, (height - y0) * scale_y]
        assert image_box == pytest.approx([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], abs=1e-6)


def test_janus_samples():
    lmm = tiny.family("janus")
    one = lmm.prepare(tiny.a_photo(), "What is it?")
    answers = {lmm.run([one], AskOptions(8, Sampling(5.0), seed=seed))[0][0].token_ids for seed in range(3)}
    assert len(answers) == 3


def test_florence_takes_tasks():
    lmm = tiny.family("florence2")
    image = tiny.a_photo()
    task = lmm.prepare(image, "<DETAILED_CAPTION>").inputs
    words = lmm.prepare(image, "Describe in detail what is shown in the image.").inputs
    assert torch.equal(task["input_ids"], words["input_ids"])


def test_florence_has_room_for_prompt_and_answer_apart():
    lmm = tiny.family("florence2")
    longest = lmm.model.config.text_config.max_position_embeddings
    prepared = lmm.prepare(tiny.a_photo(), "Who?", answer_ids=[1] + [5] * (longest - 3) + [2])
    assert prepared.length > longest
    (_, maps) = lmm.run([prepared])[0]
    assert len(maps.maps) == longest - 1
