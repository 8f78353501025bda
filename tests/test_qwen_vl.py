"""Qwen-VL and GLM-4.1V: folders as they lie on the hub, and images that are far too large."""

import json
from pathlib import Path

import pytest
import torch

from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.lmms.checks import first_keys
from tests import tiny

FAMILIES = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"]
FLAT = ["qwen2_vl", "qwen2_5_vl"]  # text config at the top, bounds as min_pixels and max_pixels


def save_as_on_the_hub(lmm: LMM, folder: Path, family: str) -> None:
    """What was published before processor_config.json held every part; the video part needs torchvision."""
    tiny.saved(lmm, folder)
    processor = json.loads((folder / "processor_config.json").read_text())
    image = {**processor["image_processor"], "processor_class": processor["processor_class"]}
    if family == "qwen3_vl":
        image["image_processor_type"] += "Fast"
    if family in FLAT:
        size = image.pop("size")
        image |= {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        config = json.loads((folder / "config.json").read_text())
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        text |= {"rope_theta": rope["rope_theta"]}
        text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        config["vision_config"]["model_type"] = family
        (folder / "config.json").write_text(json.dumps({**text, **config}))
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    video = {"video_processor_type": processor["processor_class"].replace("Processor", "VideoProcessor")}
    (folder / "video_preprocessor_config.json").write_text(json.dumps({**image, **video}))
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()


@pytest.mark.parametrize("family", FAMILIES)
def test_loads_what_is_on_the_hub(family, tmp_path):
    lmm = tiny.family(family)
    save_as_on_the_hub(lmm, tmp_path, family)
    loaded = load_lmm(str(tmp_path))
    assert type(loaded) is type(lmm) and type(loaded.processor).__name__ == type(lmm.processor).__name__
    image = tiny.a_photo((70, 90))
    one, again = lmm.prepare(image, "Who?"), loaded.prepare(image, "Who?")
    assert one.inputs.keys() == again.inputs.keys()
    for key, value in one.inputs.items():
        torch.testing.assert_close(again.inputs[key], value, rtol=0, atol=0)
    torch.testing.assert_close(first_keys(loaded, again), first_keys(lmm, one), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_huge_image_takes_no_more_tokens_than_allowed(family):
    (grid,) = tiny.family(family).prepare(tiny.a_photo((600, 900)), "Who?").grids
    assert grid.view.size_hw == (9, 13)  # of at most 8192 / (8 * 8) tokens
    assert grid.view.box_xyxy == (0, 0, 900, 600)
