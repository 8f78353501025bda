"""Prompts from maps, and the segmenter's arguments from prompts."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from aas.geometry import padded_view, stretched_view
from aas.maps.mean import without_token_mean
from aas.maps.merge import phrase_map
from aas.phrases.alignment import decode_with_spans
from aas.phrases.parser import load_pipeline, noun_phrases
from aas.pointing.prompts import FULL_ATTENTION, mask_prompt, point_prompt, points_prompt, stacked
from aas.presets import PRESETS
from aas.records import Answer, Prompt
from aas.segmenters import load_segmenter
from aas.store import reference
from tests import tiny

IMAGE_HW = (240, 360)
VIEW = stretched_view((12, 12), IMAGE_HW)


def bump(row: int, column: int, height: float = FULL_ATTENTION) -> np.ndarray:
    rows, columns = np.indices((12, 12))
    return (height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.5)).astype(np.float32)


def test_points_of_both_kinds():
    grid_map = bump(3, 3) + bump(8, 9, 0.9 * FULL_ATTENTION) - bump(10, 1)
    prompt = points_prompt(grid_map, VIEW, IMAGE_HW, positive=3, negative=1)
    assert prompt.labels.tolist() == [1, 1, 0]
    cells = [(int(y / 20), int(x / 30)) for x, y in prompt.points_xy]
    assert cells == [(3, 3), (8, 9), (10, 1)]
    assert tuple(prompt.points_xy[0]) == point_prompt(grid_map, VIEW, IMAGE_HW)


def test_a_constant_map_has_no_negative_point():
    prompt = points_prompt(np.zeros((12, 12), np.float32), VIEW, IMAGE_HW, positive=2, negative=2)
    assert prompt.labels.tolist() == [1] and prompt.points_xy.shape == (1, 2)


@pytest.mark.parametrize("image_hw", [(240, 360), (360, 240), (64, 64), (3, 900)])
def test_mask_prompt_is_that_of_the_reference(image_hw):
    """Section `Masks` of the reference, `Mask-prompt mode`, computed independently."""
    height, width = image_hw
    grid_map, side = bump(5, 6) * 1.1 - FULL_ATTENTION / 10, max(image_hw)
    square = F.interpolate(torch.from_numpy(grid_map)[None, None], size=(side, side), mode="bicubic")[0, 0]
    top, left = (side - height) // 2, (side - width) // 2
    probability = square[top : top + height, left : left + width] / 0.0002
    clipped = np.clip(probability.double().numpy(), 0.001, 0.999)
    logits = torch.from_numpy(np.log(clipped / (1 - clipped)))[None, None]
    small_hw = (max(1, round(height * 256 / side)), max(1, round(width * 256 / side)))
    expected = np.zeros((256, 256))
    expected[: small_hw[0], : small_hw[1]] = F.interpolate(logits, size=small_hw, mode="bicubic")[0, 0].numpy()

    prompt = mask_prompt(grid_map, padded_view((12, 12), image_hw), image_hw)
    assert prompt.mask_logits.dtype == np.float32
    np.testing.assert_allclose(prompt.mask_logits, expected, atol=1e-3)
    y, x = np.nonzero(probability.numpy() > 0.75)
    assert prompt.box_xyxy.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]


def test_the_box_is_the_image_where_the_attention_is_weak():
    prompt = mask_prompt(bump(5, 6, FULL_ATTENTION / 2), VIEW, IMAGE_HW, mask_side=128)
    assert prompt.box_xyxy.tolist() == [0, 0, 360, 240] and prompt.mask_logits.shape == (128, 128)


def test_a_segmenter_takes_stacked_prompts():
    """Each prompt gives in its batch what it gives alone."""
    segmenter = load_segmenter("embedded")
    (embedding,) = segmenter.encode([tiny.a_photo(IMAGE_HW)])
    maps = [bump(3, 3), bump(3, 3) + bump(8, 9) - bump(10, 1), bump(6, 6) * 0.5]
    side = segmenter.model.config.vision_config.image_size // 4
    prompts = [points_prompt(grid_map, VIEW, IMAGE_HW, 2, 1) for grid_map in maps]
    prompts += [mask_prompt(grid_map, VIEW, IMAGE_HW, side) for grid_map in maps]
    batches = stacked(prompts)
    assert len(batches) == 3
    for indices, arguments in batches:
        together = segmenter.masks(embedding, **arguments)
        assert together.masks.shape == (len(indices), 3, *IMAGE_HW)
        for i, prompt_index in enumerate(indices):
            ((_, alone_arguments),) = stacked([prompts[prompt_index]])
            alone = segmenter.masks(embedding, **alone_arguments)
            np.testing.assert_allclose(together.scores[i], alone.scores[0], atol=1e-5)
            assert (together.masks[i] != alone.masks[0]).mean() < 1e-3


def test_prompts_of_every_kind_have_their_batch():
    one = Prompt(np.ones((1, 2), np.float32), np.array([1]))
    two = Prompt(np.ones((2, 2), np.float32), np.array([1, 0]))
    box = Prompt(box_xyxy=np.zeros(4, np.float32))
    batches = stacked([one, two, box, one])
    assert [indices for indices, _ in batches] == [[0, 3], [1], [2]]
    assert batches[0][1]["points_xy"].shape == (2, 1, 2) and batches[0][1]["labels"].tolist() == [[1], [1]]
    assert batches[2][1].keys() == {"boxes_xyxy"}
    assert stacked([]) == []


@pytest.mark.parametrize("name", ["dog", "truck"])
@pytest.mark.parametrize("heads", ["all-heads", "head-minus-2"])
def test_phrases_and_points_of_the_reference(shared_dir, heads, name):
    """From the authors' own items: their phrases and points, exactly."""
    from transformers import AutoTokenizer

    golden = shared_dir / "golden"
    expected = json.loads((golden / f"segment/gcg/{heads}/{name}.json").read_text())
    (entry,) = [
        entry
        for entry in json.loads((golden / "segment/gcg_ref_anno.json").read_text())["images"]
        if entry["id"] == name
    ]
    image_hw = (entry["height"], entry["width"])
    _, token_ids, maps = reference.read_item(golden / f"segment/attn_pth/{heads}/{name}.pth")
    tokenizer = AutoTokenizer.from_pretrained(golden / "models/llava-tiny")
    text, spans = decode_with_spans(tokenizer, token_ids)
    phrases = noun_phrases(
        load_pipeline(str(golden / "models/en_ewt_np")), Answer("", text, tuple(token_ids), tuple(spans))
    )
    residual, merge = without_token_mean(maps), PRESETS["reference-2024"].merge
    view = padded_view(maps.shape[1:], image_hw)
    points = [point_prompt(phrase_map(residual, phrase.token_indices, merge), view, image_hw) for phrase in phrases]
    assert text == expected["caption"]
    assert [phrase.text for phrase in phrases] == expected["phrases"]
    assert [list(point) for point in points] == expected["points"]
