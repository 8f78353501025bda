"""A researcher's session at the Python door: a model that is loaded already, asked, looked at, saved, and used on."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import aas
from tests.tiny.llava import llava


def test_dir_shows_the_door():
    assert {"Grounder", "Grounding", "GroundingError", "ImageError", "load_attention"} <= set(dir(aas))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_session(tmp_path, attention):
    model, processor = llava()
    model.set_attn_implementation(attention)
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    before = model(**inputs, output_attentions=attention == "eager")

    grounder = aas.Grounder(model, processor=processor, max_new_tokens=4)
    photo = data.chelsea()
    grounding = grounder(photo, answer="A cat and a dog on the sofa")
    assert grounding.labels == ["A cat", "a dog", "the sofa"] and grounding["sofa"].text == "the sofa"
    assert grounding.masks.shape == (3, 300, 451) and grounding.boxes.shape == (3, 4)

    # what people have in their hands
    png = tmp_path / "photo.png"
    Image.fromarray(photo).save(png)
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    with png.open("rb") as file:
        same = [
            png,
            str(png),
            png.read_bytes(),
            file,
            Image.fromarray(photo),
            photo / 255,
            tensor,
            tensor.float() / 255,
        ]
        found = grounder(same, answer="A cat and a dog on the sofa")
    for one in found:
        np.testing.assert_array_equal(one.image, photo)
        np.testing.assert_array_equal(one.points_xy, grounding.points_xy)
    grey, failed = grounder([photo[..., 0], photo.astype(np.float64)], answer="a cat")
    assert grey.image.shape == photo.shape and isinstance(failed, aas.GroundingError) and "255" in str(failed)

    # looked at, kept, and read again
    assert grounding.draw().width > 451 and len(repr(grounding)) < 150
    assert grounding._repr_html_().startswith("<iframe") and "the sofa" in grounding._repr_html_()
    json_path, _ = grounding.save(tmp_path, name="cat")
    again = aas.Grounding.load(json_path)
    np.testing.assert_array_equal(again.masks, grounding.masks)
    answer, kept = grounder.attention(photo, "What is it?", keep="heads")
    assert kept.maps.shape[2] == len(answer.token_ids) <= 4

    # the model is the user's
    after = model(**inputs, output_attentions=attention == "eager")
    assert torch.equal(before.logits, after.logits)
    assert model.config.text_config._attn_implementation == attention
    if attention == "eager":
        assert all(torch.equal(a, b) for a, b in zip(before.attentions, after.attentions, strict=True))


def test_options_of_the_door(tmp_path):
    model, processor = llava()
    with pytest.raises(TypeError, match=r"no option 'temprature'.*temperature"):
        aas.Grounder(model, processor=processor, temprature=1.0)
    with pytest.raises(ValueError, match="Known: "):
        aas.Grounder(model, processor=processor, drop=("verbs",))
    with pytest.raises(ValueError, match="4 heads"):
        aas.Grounder(model, processor=processor, heads=(9,))
    one = aas.Grounder(model, processor=processor, preset="reference-2024")
    other = aas.Grounder(model, processor=processor, heads=(-2,))
    mean = aas.Grounder(model, processor=processor)
    photo = data.coffee()
    maps = [grounder(photo, answer="a cup").token_maps for grounder in (one, other, mean)]
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


def test_the_second_half_alone():
    model, processor = llava()
    grounder = aas.Grounder(model, processor=processor)
    photo = data.coffee()
    whole = grounder(photo, answer="a cup")
    half = grounder.ground(photo, whole.answer, whole.attention)
    np.testing.assert_array_equal(half.masks, whole.masks)
    with pytest.raises(ValueError, match="one map per token"):
        grounder.ground(photo, *grounder.attention(photo, answer="a cup"))
