"""A trained head makes the masks: of the tiny LLaVA's phrases, with a tiny SAM, in `Grounder` and in `aas ground`."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

import aas
from aas import rle
from aas.cli import app
from aas.cot import prompts
from aas.cot.thinker import Chain, Thinker
from aas.headed import HeadMasks
from aas.heads.proposals import ProposalHead
from aas.heads.stored import Origin, save_head
from aas.heads.unet import UNetHead
from aas.lmms import load_lmm
from aas.lmms.phrase_features import head_shape, phrase_features
from aas.segmenters import load_segmenter
from aas.segmenters.proposals import proposals
from aas.serve.models import Models
from aas.serve.options import Serve
from aas.stages.options import head_file
from aas.store.results import read_result
from tests import tiny
from tests.command import run
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

    part = float(logits.sigmoid().quantile(0.7))
    few = HeadMasks(folders["head"], lmm, grounder.segmenter, folders["segmenter"], part)
    phrases = [one.phrase for one in grounding.phrases]
    masks = few(prepared, grounding.answer, phrases, features.embedding)
    for one, expected in zip(masks, logits.sigmoid(), strict=True):
        assert np.array_equal(one.masks[0], (expected > part).numpy())
    assert sum(one.masks.sum() for one in masks) == pytest.approx(0.3 * logits.numel(), abs=2)


def test_a_threshold_that_cannot_be(folders, tmp_path):
    line = ("ground", tmp_path, "--out", tmp_path / "out")
    for more, said in (((), "of --head, which is not given"), (("--head", folders["head"]), "above 0 and below 1")):
        code, output = run(*line, "--head-threshold", 0.3 if not more else 1, *more)
        assert code == 2 and said in output
    with pytest.raises(ValueError, match="above 0 and below 1"):
        HeadMasks(folders["head"], None, None, "", 0.0)


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


class Stored:
    """Stored attention of given answers by the tiny LMM, of two photographs: one answer has no phrases."""

    def __init__(self, folder: Path, models: dict[str, str]):
        self.folder, self.models = folder, models
        self.photographs, self.answers = tiny.photographs(folder / "photos", [(40, 60), (50, 30)]), folder / "answers"
        rows = [{"image": "0.png", "answer": ANSWER}, {"image": "1.png", "answer": "Yes."}]
        self.answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
        given = ("--images", self.photographs, "--answers", self.answers)
        assert run("infer-attn", *given, "--model", models["model"], "--out", folder / "attn")[0] == 0
        assert self("gcg", folder / "gcg")[0] == 0

    def __call__(self, task: str, out: Path, *more: object, head: str | Path | None = None) -> tuple[int, str]:
        where = ("--attn", self.folder / "attn", "--images", self.photographs, "--out", out, "--workers", 0)
        named = ("--segmenter", self.models["segmenter"], "--head", head or self.models["head"])
        return run("segment", task, *where, *named, *more)


@pytest.fixture(scope="module")
def stored(folders, tmp_path_factory) -> Stored:
    return Stored(tmp_path_factory.mktemp("stored"), folders)


def test_stored_answers_get_the_masks_of_ground(stored, folders, tmp_path):
    """Phrases of answers and given expressions; an answer without phrases has none."""
    named = [part for name, value in folders.items() for part in (f"--{name}", value)]
    given = ("--answers", stored.answers, "--out", tmp_path / "ground", "--workers", 0)
    assert run("ground", stored.photographs, *given, *named)[0] == 0
    ours, theirs = (read_result(folder / "0.json") for folder in (stored.folder / "gcg", tmp_path / "ground"))
    assert ours.phrases == theirs.phrases and ours.pred_masks == theirs.pred_masks and ours.scores == theirs.scores
    assert read_result(stored.folder / "gcg/1.json").pred_masks == ()


def test_given_expressions_get_masks_of_the_head(stored, tmp_path):
    row = {"image": "0.png", "answer": ANSWER, "spans": [[2, 5], [0, 5], [0, len(ANSWER)]]}
    (rows := tmp_path / "rows").write_text(json.dumps(row) + "\n")
    assert stored("expressions", tmp_path / "out", "--answers", rows)[0] == 0
    found = read_result(tmp_path / "out/0.png.json")
    assert found.phrases == ("dog", "A dog", ANSWER) and len(set(found.scores)) == 3
    assert found.scores[1] == pytest.approx(read_result(stored.folder / "gcg/0.json").scores[0], abs=1e-3)


def test_categories_get_masks_of_the_head(stored, tmp_path):
    images = [{"id": 7, "file_name": "0.png", "height": 40, "width": 60}]
    said = {"images": images, "annotations": [], "categories": [{"id": 3, "name": "dog"}]}
    (annotation := tmp_path / "coco").write_text(json.dumps(said))
    options = ("--ref-anno", annotation, "--categories", "all", "--category-thresh", 0.9)
    assert stored("instance", tmp_path / "out", *options)[0] == 0
    (one,) = json.loads((tmp_path / "out/results.json").read_text())
    whole = read_result(stored.folder / "gcg/0.json")
    # Of one phrase alone and of three at once; masks of a head that learned nothing lie near 0.
    assert one["category_id"] == 3 and one["score"] == pytest.approx(whole.scores[0], abs=1e-3)
    assert np.mean(rle.decoded(one["segmentation"]) != rle.decoded(whole.pred_masks[0])) < 0.1
    code, output = stored("instance", tmp_path / "more", *options, "--more-masks")
    assert code == 2 and "leave --more-masks out" in output


def test_a_head_that_does_not_fit_stored_answers_is_refused(stored, folders, tmp_path):
    lmm, sam = load_lmm(folders["model"], "cpu"), load_segmenter(folders["segmenter"]).model
    head = UNetHead(head_shape(lmm), 4, 16, segmenter=sam)
    save_head(tmp_path / "head", head, Origin("another", "1"), Origin.of(folders["segmenter"], "segmenter"))
    code, output = stored("gcg", tmp_path / "out", head=tmp_path / "head")
    assert code == 2 and "was trained on the LMM another (1)" in output and not (tmp_path / "out/run.json").exists()
    assert stored("gcg", tmp_path / "out", head=tmp_path / "none")[0] == 2
    with pytest.raises(ValueError, match="--adapter makes another one of it"):
        aas.Grounder(**folders, adapter="lora")
    code, output = stored("gcg", tmp_path / "out", "--mask-choice", "best-score")
    assert code == 2 and "has none to choose" in output


def test_no_head_can_be_named_too():
    assert head_file("training-free") is None and head_file("head.safetensors") == "head.safetensors"


def test_a_head_is_a_choice_in_the_app(folders, tmp_path):
    here = {"model": (folders["model"],), "segmenter": (folders["segmenter"],), "device": "cpu"}
    models = Models(Serve(**here, head=(folders["head"],)))
    models.check()
    assert models.choices["head"] == ["training-free", folders["head"]]
    assert models.grounder(models.first).head is None
    assert models.grounder(models.chosen({"head": folders["head"]})).head is not None
    (other := tmp_path / "other").write_bytes(save({}))
    with pytest.raises(ValueError, match="is no mask head"):
        Models(Serve(**here, head=(str(other),))).check()


def test_a_head_that_chooses_takes_masks_as_the_segmenter_draws_them(folders, tmp_path):
    """One of its own proposals for each phrase, at the photograph's size."""
    sam, photo = load_segmenter(folders["segmenter"]), tiny.a_photo((40, 60))
    torch.manual_seed(0)
    head = ProposalHead(head_shape(tiny.family("llava")), 4, segmenter=sam.model)
    origins = Origin.of(folders["model"], "lmm"), Origin.of(folders["segmenter"], "segmenter")
    save_head(tmp_path / "head.safetensors", head, *origins)
    grounder = aas.Grounder(**folders | {"head": str(tmp_path / "head.safetensors")}, device="cpu")
    grounding = grounder(photo, answer=ANSWER)
    (embedding,) = sam.encode([photo])
    found = proposals(sam, embedding)
    drawn = sam.drawn(found.logits.float(), embedding)
    assert len(grounding.phrases) == 3
    for one in grounding.phrases:
        (which,) = np.flatnonzero((one.mask == drawn).all((1, 2)))[:1]
        inside = found.logits[which][found.logits[which] > 0].float()
        assert one.score == pytest.approx(float(inside.sigmoid().mean()))
    with pytest.raises(ValueError, match="chooses whole masks"):
        HeadMasks(tmp_path / "head.safetensors", grounder.lmm, sam, folders["segmenter"], 0.3)
