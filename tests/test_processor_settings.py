"""Settings of image processors other than the published ones, and processors that lack some: read, or refused."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaImageProcessorPil, SamImageProcessorPil, SamModel, SamProcessor
from transformers.image_utils import SizeDict
from typer.testing import CliRunner

from aas.capture import CaptureError
from aas.cli import app
from aas.lmms import load_lmm
from aas.lmms.base import LMM
from aas.segmenters import load_segmenter
from tests import tiny
from tests.tiny import segmenters
from tests.tiny.llava import llava

IMAGE_HW = (100, 160)
GREY = np.full((*IMAGE_HW, 3), 127, np.uint8)
SETTINGS = [
    {},
    {"do_resize": False},
    {"size": SizeDict(height=80, width=80)},
    {"size": SizeDict(height=80, width=112)},
    {"size": SizeDict(shortest_edge=56, longest_edge=80)},
    {"size": SizeDict(shortest_edge=90)},
    {"size": SizeDict(shortest_edge=28)},
    {"size": SizeDict(height=56, width=56), "do_center_crop": False},
    {"size": SizeDict(max_height=70, max_width=70)},
]


def seen(lmm: LMM, axis: int) -> tuple[int, int]:
    """First and last pixel along an axis that the processor, asked alone, lets through to the model."""
    plain, hit = lmm.inputs(GREY, "Q?")["pixel_values"], []
    for i in range(IMAGE_HW[axis]):
        image = GREY.copy()
        image[(slice(None),) * axis + (i,)] = 255
        if (lmm.inputs(image, "Q?")["pixel_values"] - plain).abs().max() > 0.05:
            hit.append(i)
    return hit[0], hit[-1] + 1


def assert_sees(lmm: LMM) -> None:
    x0, y0, x1, y1 = lmm.prepare(GREY, "Q?").grids[0].view.box_xyxy
    for axis, start, end in ((1, x0, x1), (0, y0, y1)):
        found = max(start, 0), min(end, IMAGE_HW[axis])
        assert found == pytest.approx(seen(lmm, axis), abs=4), "what resampling mixes in beyond the edge"


def with_settings(lmm: LMM, settings: dict) -> LMM:
    lmm = copy.deepcopy(lmm)
    for name, value in settings.items():
        setattr(lmm.processor.image_processor, name, value)
    return lmm


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("family", ["llava", "vipllava"])
def test_the_view_is_what_the_processor_lets_through(family, settings):
    assert_sees(with_settings(tiny.family(family), settings))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("chameleon", {}),
        ("chameleon", {"do_resize": False}),
        ("chameleon", {"size": SizeDict(height=40, width=48)}),
        ("paligemma", {"do_center_crop": True, "crop_size": SizeDict(height=32, width=32),
                       "size": SizeDict(height=48, width=64)}),
        ("florence2", {"do_center_crop": True, "crop_size": SizeDict(height=64, width=64),
                       "size": SizeDict(shortest_edge=80)}),
    ],
    ids=str,
)  # fmt: skip
def test_other_families_read_the_same_settings(family, settings):
    assert_sees(with_settings(tiny.family(family), settings))


@pytest.mark.parametrize("size", [SizeDict(shortest_edge=56), SizeDict(height=80, width=80)], ids=str)
def test_a_square_that_is_then_cropped(size):
    model, processor = llava()
    crop = {"height": 56, "width": 56}
    processor.image_processor = LlavaImageProcessorPil(do_pad=True, size=size, crop_size=crop)
    lmm = type(tiny.family("llava"))(model, processor, "padded")
    assert_sees(lmm)
    x0, y0, x1, y1 = lmm.prepare(GREY, "Q?").grids[0].view.box_xyxy
    side = 160 * 56 / (size.height or 56)
    assert (x1 - x0, y1 - y0) == pytest.approx((side, side)) and (x0 + x1, y0 + y1) == pytest.approx((160, 100))


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("idefics3", {"do_resize": False}),
        ("internvl", {"do_resize": False}),
        ("mllama", {"do_pad": False}),
        ("deepseek_vl", {"do_pad": False}),
        ("gemma3", {"do_center_crop": True}),
        ("pixtral", {"do_resize": False}),
        ("llava_next", {"crop_size": SizeDict(height=14, width=14)}),
    ],
    ids=str,
)
def test_settings_that_nobody_reads_are_refused(family, settings):
    with pytest.raises(CaptureError, match=r"settings say|no known layout"):
        with_settings(tiny.family(family), settings).prepare(GREY, "Q?")


# ------------------------------------------------------------------------------------------------------ segmenters


def segmenter_folder(folder: Path, **settings: object) -> Path:
    saved = segmenters.saved("sam", folder)
    path = saved / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return saved


@pytest.mark.parametrize(
    "settings",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"do_rescale": False, "do_normalize": False},
        {"image_mean": [0.1, 0.2, 0.3]},
    ],
    ids=str,
)
def test_a_segmenters_pixels_are_its_processors(settings, tmp_path):
    folder = segmenter_folder(tmp_path, **settings)
    image, points = tiny.a_photo((97, 161)), np.array([[[80.0, 40.0]]])
    processor = SamProcessor(SamImageProcessorPil.from_pretrained(folder))
    inputs = processor(Image.fromarray(image), return_tensors="pt")
    segmenter = load_segmenter(str(folder))
    size_hw = segmenter.input_size_hw(image.shape[:2])
    (resized,) = segmenter._resized([image], [size_hw])
    pixels = segmenter._pixels(resized, size_hw)
    torch.testing.assert_close(pixels, inputs["pixel_values"][0].float(), atol=1e-5, rtol=1e-5)
    inputs = processor(Image.fromarray(image), input_points=[points.tolist()], return_tensors="pt")
    with torch.no_grad():
        model = SamModel.from_pretrained(folder).eval()
        scores = model(inputs["pixel_values"].float(), input_points=inputs["input_points"]).iou_scores[0, 0]
    ours = segmenter.masks(segmenter.encode([image])[0], points).scores[0]
    np.testing.assert_allclose(ours, scores.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_resize": False},
        {"do_pad": False},
        {"resample": 3},
        {"size": {"longest_edge": 48}},
        {"size": 48},
        {"image_mean": None},
    ],
    ids=str,
)
def test_a_segmenters_other_settings_are_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="its processor"):
        load_segmenter(str(segmenter_folder(tmp_path, **settings)))


# --------------------------------------------------------------------------------------- processors that lack things


@pytest.fixture
def model_folder(tmp_path) -> Path:
    return tiny.saved(tiny.family("llava"), tmp_path / "model")


def test_the_patch_size_is_the_configs(model_folder):
    path = model_folder / "processor_config.json"
    settings = json.loads(path.read_text())
    del settings["patch_size"]
    path.write_text(json.dumps(settings))
    (answer, maps) = load_lmm(str(model_folder)).ask(GREY, "What is it?", "a dog")
    assert answer.text == "a dog" and maps.maps.shape[1:] == (4, 4)


WORDS = "{% for m in messages %}{{ 'USER: ' + m['content'] + ' ASSISTANT:' }}{% endfor %}"
NO_IMAGE = "{% for m in messages %}USER: {{ m['content'][-1]['text'] }} ASSISTANT:{% endfor %}"


@pytest.mark.parametrize("error", [KeyError("pattern"), ImportError("mistral-common is not installed.\nInstall it.")])
def test_a_tokenizer_that_cannot_be_loaded_is_one_line(model_folder, monkeypatch, error):
    """As of a tekken.json that is damaged, or that needs a package."""

    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(LMM, "load_processor", broken)
    reason = r"\((KeyError: 'pattern'|mistral-common is not installed\. Install it)\)\.$"
    with pytest.raises(ValueError, match=rf"its tokenizer or processor cannot be loaded {reason}") as told:
        load_lmm(str(model_folder))
    assert "\n" not in str(told.value)


NO_QUESTION = "{% for m in messages %}USER: <image> Describe it. ASSISTANT:{% endfor %}"


@pytest.mark.parametrize("template", [None, WORDS, NO_QUESTION], ids=["none", "words", "no-question"])
def test_a_template_that_makes_no_prompt_is_told_before_the_weights_are_read(model_folder, template):
    path = model_folder / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    (model_folder / "model.safetensors").write_bytes(b"none")
    with pytest.raises(ValueError, match="makes no prompt of an image and a question") as error:
        load_lmm(str(model_folder))
    assert ("the question is left out" in str(error.value)) == (template == NO_QUESTION)


def test_a_question_that_is_left_out_by_a_processor_of_ones_own_is_told():
    lmm = tiny.family("llava")
    processor = copy.deepcopy(lmm.processor)
    processor.chat_template = NO_QUESTION
    with pytest.raises(ValueError, match="the question is left out of it"):
        load_lmm(lmm.model, processor=processor)


@pytest.mark.parametrize("template", [None, WORDS, NO_IMAGE], ids=["none", "words", "no-image"])
def test_a_template_without_an_image_is_told_once_before_anything_is_written(model_folder, template, tmp_path):
    path = model_folder / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    photos, out = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(GREY).save(photos / name)
    arguments = ["infer-attn", "--images", photos, "--model", model_folder, "--out", out]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 2 and not out.exists()
    assert str(result.stderr).count("makes no prompt of an image and a question") == 1
