"""Families that cut the image into tiles: where exactly each token looks, and loading what lies on the hub."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from aas.capture import CaptureError
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from tests import tiny

SIZES_HW = [(64, 64), (60, 130), (131, 77), (60, 200), (200, 199)]


def ramps(image_hw: tuple[int, int]) -> np.ndarray:
    """A picture whose red is x and whose green is y, from 0 to 255."""
    height, width = image_hw
    x, y = (np.arange(width) + 0.5) / width * 255, (np.arange(height) + 0.5) / height * 255
    return np.stack([*np.broadcast_arrays(x[None, :], y[:, None]), np.full(image_hw, 128)], -1).round().astype(np.uint8)


def patch_colours(lmm: LMM, inputs: dict[str, Tensor], patch: int) -> Tensor:
    """The mean colour [tiles, h, w, 3], 0 to 255, of each patch of each tile that the tower gets."""
    pixels = inputs["pixel_values"].flatten(0, -4)
    patches = torch.nn.functional.avg_pool2d(pixels, patch).permute(0, 2, 3, 1).contiguous()
    image_processor = lmm.processor.image_processor
    return (patches * torch.tensor(image_processor.image_std) + torch.tensor(image_processor.image_mean)) * 255


def token_colours(lmm: LMM, inputs: dict[str, Tensor]) -> Tensor:
    """The mean colour [n, 3] that each image token stands for, packed by the model's own code."""
    model, config = lmm.model.model, lmm.model.config
    if config.model_type == "internvl":
        shuffled = model.pixel_shuffle(patch_colours(lmm, inputs, config.vision_config.patch_size[0]))
        return shuffled.unflatten(-1, (4, 3)).mean(-2).flatten(0, 2)
    tiles = patch_colours(lmm, inputs, config.vision_config.patch_size).flatten(1, 2)
    name = "vision_aspect_ratio" if config.model_type == "llava_onevision" else "vision_feature_select_strategy"
    how = {name: getattr(config, name)}
    packed, _ = model.pack_image_features([tiles], inputs["image_sizes"], image_newline=torch.zeros(3), **how)
    return packed[0]


@pytest.mark.parametrize("image_hw", SIZES_HW, ids=str)
@pytest.mark.parametrize(("family", "tolerance"), [("llava_next", 0.05), ("llava_onevision", 0.2), ("internvl", 0.05)])
def test_each_token_looks_where_the_view_says(family, tolerance, image_hw):
    """Within `tolerance` cells; LLaVA-OneVision's patches leave out pixels between tiles, which no grid can say."""
    lmm = tiny.family(family)
    prepared = lmm.prepare(ramps(image_hw), "Where?")
    colours = token_colours(lmm, prepared.inputs)
    order = lmm.image_positions(prepared.inputs)
    for grid in prepared.grids:
        rows, columns = grid.view.size_hw
        here = torch.searchsorted(order, grid.positions)
        red, green = colours[here, :2].unflatten(0, (rows, columns)).unbind(-1)
        x0, y0, x1, y1 = grid.view.box_xyxy
        cell_x, cell_y = (x1 - x0) / columns, (y1 - y0) / rows
        x, y = x0 + (torch.arange(columns) + 0.5) * cell_x, y0 + (torch.arange(rows) + 0.5) * cell_y
        # Where a cell, and what it is interpolated from, is free of padding.
        inside_x = (x > 0.85 * cell_x) & (x < image_hw[1] - 0.85 * cell_x)
        inside_y = (y > 0.85 * cell_y) & (y < image_hw[0] - 0.85 * cell_y)
        inside = inside_y[:, None] & inside_x
        assert inside.sum() >= 4
        off_x, off_y = (red / 255 * image_hw[1] - x) / cell_x, (green / 255 * image_hw[0] - y[:, None]) / cell_y
        assert off_x[inside].abs().max() < tolerance and off_y[inside].abs().max() < tolerance


def save_as_on_the_hub(lmm: LMM, folder: Path) -> None:
    """One file for each part of the processor, as checkpoints have them that were made before transformers 5."""
    lmm.model.save_pretrained(folder)
    lmm.tokenizer.save_pretrained(folder)
    whole = lmm.processor.to_dict()
    image_processor = whole.pop("image_processor")
    image_processor["image_processor_type"] += "Fast"
    video_processor = {"video_processor_type": whole["processor_class"].replace("Processor", "VideoProcessor")}
    for name, content in {
        "processor_config.json": whole,
        "preprocessor_config.json": image_processor,
        "video_preprocessor_config.json": video_processor,
        "chat_template.json": {"chat_template": lmm.processor.chat_template},
    }.items():
        (folder / name).write_text(json.dumps(content))


def save_with_video(lmm: LMM, folder: Path) -> None:
    """As transformers 5 saves a processor that has its video part."""
    tiny.saved(lmm, folder)
    whole = json.loads((folder / "processor_config.json").read_text())
    name = whole["processor_class"].replace("Processor", "VideoProcessor")
    whole["video_processor"] = {"video_processor_type": name, "size": {"height": 8, "width": 8}}
    (folder / "processor_config.json").write_text(json.dumps(whole))


@pytest.mark.parametrize("save", [save_as_on_the_hub, save_with_video])
@pytest.mark.parametrize("family", ["internvl", "llava_onevision"])
def test_the_video_part_is_left_out(family, save, tmp_path):
    lmm = tiny.family(family)
    save(lmm, tmp_path)
    expected, ours = (one.prepare(tiny.a_photo(), "What is it?") for one in (lmm, load_lmm(str(tmp_path))))
    assert expected.inputs.keys() == ours.inputs.keys()
    for key, value in expected.inputs.items():
        torch.testing.assert_close(ours.inputs[key], value, rtol=0, atol=0)


@pytest.mark.parametrize("family", ["internvl", "llava_next", "llava_onevision"])
def test_an_unknown_layout_is_an_error(family):
    lmm = tiny.family(family)
    inputs = lmm.inputs(tiny.a_photo((60, 90)), "What is it?")
    with pytest.raises(CaptureError, match="layout is not known"):
        lmm.grids(inputs, (200, 40))


def test_tiles_that_are_cropped_again_are_an_error():
    lmm = copy.copy(tiny.family("llava_next"))
    lmm.processor = copy.deepcopy(lmm.processor)
    lmm.processor.image_processor.size = {"shortest_edge": 40}
    with pytest.raises(CaptureError, match="no known layout"):
        lmm.prepare(tiny.a_photo(), "What is it?")
