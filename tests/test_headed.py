"""A trained head makes the masks: of the tiny LLaVA's phrases, with a tiny SAM, in `Grounder` and in `aas ground`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import aas
from aas.cli import app
from aas.cot import prompts
from aas.cot.thinker import Chain, Thinker
from aas.headed import HeadMasks
from aas.heads.stored import Origin, save_head
from aas.heads.unet import UNetHead
from aas.lmms import load_lmm
from aas.lmms.phrase_features import head_shape, phrase_features
from aas.segmenters import load_segmenter
from aas.store.results import read_result
from tests import tiny
from tests.tiny import segmenters

ANSWER = "A dog and a cat near the tree."


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """An LMM, a SAM, and a head that was made for them."""
    folder = tmp_path_factory.mktemp("models")
    lmm, sam = (tiny.saved(tiny.family("llava"), folder / "lmm"), segmenters.saved("sam", folder / "sam"))
    torch.manual_seed(0)
    head = UNetHead(head_shape(tiny.family("llava")), 4, 16, segmenter=load_segmenter(str(sam)).model)
    origins = Origin.of(str(lmm), "lmm"), Origin.of(str(sam), "segmenter")
    save_head(folder / "head.safetensors", head, *origins)
    return {"model": str(lmm), "segmenter": str(sam), "head": str(folder / "head.safetensors")}


def test_masks_are_those_of_the_head(folders):
    """All tokens of the phrase count, and rows are the tokens' own, whatever the maps are made of."""
    photo, grounder = tiny.a_photo((40, 60)), aas.Grounder(**folders, device="cpu")
    grounding = grounder(photo, answer=ANSWER)
    assert [one.phrase.text for one in grounding.phrases] == ["A dog", "a cat", "the tree"]
    lmm = grounder.lmm
    spans = [one.phrase.span for one in grounding.phrases]
    prepared = lmm.prepare(photo, aas.presets.DEFAULT_QUESTION, ANSWER)
    (features,) = phrase_features(lmm, head_shape(lmm), [prepared], [spans], [(40, 60)])
    features = replace(features, embedding=grounder.segmenter.encode([photo])[0])
    with torch.no_grad():
        logits = grounder.head.head([features])[0][-1].on_image((40, 60))
    for one, expected in zip(grounding.phrases, logits, strict=True):
        assert np.array_equal(one.mask, (expected > 0).numpy())
        assert one.score == pytest.approx(float(expected[expected > 0].sigmoid().mean()) if one.mask.any() else 0.0)


def test_the_command_takes_a_head(folders, tmp_path):
    photos = tiny.photographs(tmp_path / "photos", [(40, 60)])
    options = [part for name, value in folders.items() for part in (f"--{name}", value)]
    found = []
    for out, more in (("with", options), ("without", options[:4])):
        line = ["ground", str(photos / "0.png"), "--answer", ANSWER, "--out", str(tmp_path / out), *more]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        found.append(read_result(tmp_path / out / "0.json"))
    assert found[0].phrases == found[1].phrases and found[0].points_xy == found[1].points_xy
    assert found[0].pred_masks != found[1].pred_masks


def test_a_thought_is_grounded_by_the_head(folders):
    """All of the model's own words, as they stand behind those that it was begun with."""
    photo, grounder = tiny.a_photo((60, 90)), aas.Grounder(**folders, device="cpu")
    chain = Chain(thought_words="all", thought_tokens=6, answer_tokens=1)
    (one,) = found = Thinker(grounder, chain)(photo, "What is it?")
    lmm = grounder.lmm
    told = lmm.prepare(photo, prompts.thinking("What is it?"), answer_ids=found.answer.token_ids)
    (features,) = phrase_features(lmm, head_shape(lmm), [told], [[one.phrase.span]], [(60, 90)])
    features = replace(features, embedding=grounder.segmenter.encode([photo])[0])
    with torch.no_grad():
        logits = grounder.head.head([features])[0][-1].on_image((60, 90))
    assert np.array_equal(one.mask, (logits[0] > 0).numpy())


def test_a_head_of_other_models_is_refused(folders):
    sam = load_segmenter(folders["segmenter"])
    with pytest.raises(ValueError, match="was trained on the LMM"):
        HeadMasks(Path(folders["head"]), load_lmm("embedded"), sam, folders["segmenter"])
    with pytest.raises(ValueError, match="was trained on the segmenter"):
        HeadMasks(Path(folders["head"]), load_lmm(folders["model"], "cpu"), sam, "embedded")


def test_stored_maps_are_not_enough(folders):
    grounder = aas.Grounder(**folders, device="cpu")
    photo = tiny.a_photo((40, 60))
    grounding = grounder(photo, answer=ANSWER)
    with pytest.raises(ValueError, match="not at stored maps"):
        grounder.ground(photo, grounding.answer, grounding.attention)
