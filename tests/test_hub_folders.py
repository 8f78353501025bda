"""Folders as they lie on the hub, whose files differ from what today's transformers writes."""

import json

import pytest
import torch

from aas.lmms import load_lmm
from tests import tiny
from tests.test_families import prepared

# family -> its processor_config.json (None: there is none) and the names in preprocessor_config.json
FOLDERS = {
    "idefics3": ({"image_seq_len": 16, "processor_class": "Idefics3Processor"}, "Idefics3ImageProcessor"),
    "smolvlm": ({"image_seq_len": 16, "processor_class": "SmolVLMProcessor"}, "SmolVLMImageProcessor"),
    "pixtral": (
        {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]", "patch_size": 8,
         "processor_class": "PixtralProcessor"},
        "PixtralImageProcessor",
    ),
    "mistral3": (
        {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]", "patch_size": 7,
         "spatial_merge_size": 2, "processor_class": "PixtralProcessor"},
        "PixtralImageProcessorFast",
    ),
    "gemma3": ({"image_seq_length": 16, "processor_class": "Gemma3Processor"}, "Gemma3ImageProcessor"),
    "paligemma": (None, "SiglipImageProcessor"),
}  # fmt: skip


@pytest.mark.parametrize("family", list(FOLDERS))
def test_loads_a_folder_as_it_lies_on_the_hub(family, tmp_path):
    lmm = tiny.family(family)
    processor_config, image_processor_type = FOLDERS[family]
    lmm.model.save_pretrained(tmp_path)
    lmm.tokenizer.save_pretrained(tmp_path)
    preprocessor_config = {**lmm.processor.image_processor.to_dict(), "image_processor_type": image_processor_type}
    if processor_config:
        _write(tmp_path / "processor_config.json", processor_config)
        preprocessor_config["processor_class"] = processor_config["processor_class"]
    else:
        preprocessor_config["processor_class"] = "PaliGemmaProcessor"
    _write(tmp_path / "preprocessor_config.json", preprocessor_config)
    if lmm.processor.chat_template:
        _write(tmp_path / "chat_template.json", {"chat_template": lmm.processor.chat_template})
    if family == "smolvlm":
        _write(tmp_path / "video_preprocessor_config.json", {"video_processor_type": "SmolVLMVideoProcessor"})
    loaded = load_lmm(str(tmp_path))
    assert type(loaded) is type(lmm)
    one, again = prepared(lmm), prepared(loaded)
    for key, value in one.inputs.items():
        torch.testing.assert_close(again.inputs[key], value, rtol=0, atol=0)


def _write(path, content):
    path.write_text(json.dumps(content))
