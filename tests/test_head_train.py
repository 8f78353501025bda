"""A head is trained from a corrected run: captured once, resumed to the same bits, measured, saved."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from aas import rle
from aas.heads.losses import mask_loss
from aas.heads.stored import Origin, load_head, read_head_file
from aas.heads.unet import UNetHead
from aas.store.results import Result, read_result, write_result
from aas.training import cache, fit, run
from aas.training.examples import Cached
from aas.training.recipe import Recipe
from tests import expression_scenes as scenes
from tests import planted, tiny
from tests.test_head_data import entries
from tests.tiny import segmenters

SHIPPED = Path(__file__).parent.parent / "recipes/heads"
FIT = Recipe(out=Path("x"), runs=[Path("x")], images=Path("x"), steps=6, save_steps=3, learning_rate=1e-2)


@pytest.fixture
def examples(tmp_path) -> Cached:
    paths = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for i, path in enumerate(paths):
        features = replace(planted.features(i, n_phrases=2), eyes=None, pixels=None)
        cache.write_example(path, cache.Example(features, planted.truth(i).expand(2, -1, -1)))
    return Cached(paths)


def a_head() -> UNetHead:
    torch.manual_seed(0)
    return UNetHead(planted.SHAPE, width=4, side=16)


def test_an_example_is_read_as_it_was_written(examples):
    ours, read = planted.features(1, n_phrases=2), examples[1]
    assert torch.equal(read.features.attention, ours.attention) and read.features.view == ours.view
    assert all(torch.equal(one, other) for one, other in zip(read.features.states, ours.states, strict=True))
    assert torch.equal(read.truth, planted.truth(1).expand(2, -1, -1)) and read.features.image_hw == (24, 32)


def test_a_training_goes_on_to_the_same_bits(examples, tmp_path):
    whole, state = a_head(), tmp_path / "whole"
    fit.fit(whole, examples, FIT, state)
    stopped, losses = a_head(), []

    def stop(step: int, loss: float) -> None:
        losses.append(loss)
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit.fit(stopped, examples, FIT, tmp_path / "part", stop)
    again = a_head()
    fit.fit(again, examples, FIT, tmp_path / "part", lambda step, _: losses.append(step))
    assert losses[5:] == [4, 5, 6]  # from the third step on, which was kept
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert (tmp_path / "part").read_bytes() == state.read_bytes()


def test_a_step_averages_the_losses_of_its_photographs(examples, tmp_path):
    one, told = a_head(), []
    losses = [
        mask_loss(one([e.features])[0], e.truth, e.features.image_hw).item() for e in (examples[i] for i in range(3))
    ]
    fit.fit(one, examples, replace(FIT, steps=1, batch_size=3), tmp_path / "state", lambda _, loss: told.append(loss))
    assert told == pytest.approx([sum(losses) / 3], rel=1e-6)


def test_a_state_of_another_head_is_refused(examples, tmp_path):
    fit.fit(a_head(), examples, once := replace(FIT, steps=1), tmp_path / "state")
    with pytest.raises(ValueError, match="is no state of this head's training"):
        fit.fit(UNetHead(planted.SHAPE, width=8), examples, once, tmp_path / "state")
    with pytest.raises(ValueError, match="is of a training by another recipe"):
        fit.fit(a_head(), examples, replace(once, learning_rate=1.0), tmp_path / "state")


def test_the_learning_rate_rises_and_falls():
    recipe = replace(FIT, steps=100, warmup=0.1, learning_rate=1.0)
    rates = [fit.learning_rate(step, recipe) for step in range(101)]
    assert rates[0] == 1e-5 and rates[10] == 1.0 and rates[100] == 0.0
    assert rates[5] == pytest.approx(0.5, abs=1e-4) and rates[55] == pytest.approx(0.5)
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)


def test_every_epoch_sees_each_example_once():
    order = fit.Order(5, seed=3)
    epochs = [[order(epoch * 5 + i) for i in range(5)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(5)) for epoch in epochs) and epochs[0] != epochs[1]
    two = [fit.Order(6, 0, process, 2) for process in range(2)]
    assert sorted(one(step) for one in two for step in range(3)) == list(range(6))


# --------------------------------------------------------------------------------------------- the whole command


@pytest.fixture
def models(tmp_path) -> dict[str, str]:
    return {
        "model": str(tiny.saved(tiny.family("llava"), tmp_path / "lmm")),
        "segmenter": str(segmenters.saved("sam", tmp_path / "sam")),
    }


@pytest.fixture
def corrected(tmp_path) -> Path:
    """A run of two photographs, the second without a phrase."""
    folder = tmp_path / "truth"
    photos = tiny.photographs(tmp_path / "photos", [(40, 60), (60, 40)])
    mask = np.zeros((40, 60), bool)
    mask[5:30, 10:40] = True
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"command": "import", "arguments": {}, "schema": 1, "versions": {}}))
    columns = {"points_xy": ((20, 20),), "prompt_points": (((20, 20, 1),),), "scores": (1.0,), "covers_point": (True,)}
    result = Result("0", "A dog on a bench", ("A dog",), (rle.of_mask(mask),), image="../photos/0.png",
                    spans=((0, 5),), token_indices=((0,),), left_out=(), **columns)  # fmt: skip
    write_result(folder / "0.json", result)
    none = {name: () for name in ("points_xy", "prompt_points", "scores", "covers_point", "spans", "token_indices")}
    write_result(folder / "1.json", Result("1", "Nothing", (), (), image="../photos/1.png", left_out=(), **none))
    assert Image.open(photos / "1.png").size == (40, 60)
    return folder


def recipe_of(tmp_path: Path, corrected: Path, models: dict[str, str], **more: object) -> Path:
    content = {"out": str(tmp_path / "out"), "runs": [str(corrected)], "images": str(tmp_path / "photos"), "steps": 3,
               "validation": [str(corrected)], "head_settings": {"width": 4, "side": 16}, **models, **more}  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_head_is_trained_from_a_corrected_run(tmp_path, corrected, models, capsys):
    recipe = Recipe.read(recipe_of(tmp_path, corrected, models))
    assert run.train(recipe, "cpu") == 3  # one photograph has no phrase
    out = capsys.readouterr().out
    assert "about 0 MiB" in out and "left out: 1: it has no phrase with a mask" in out
    lmm, sam = Origin.of(models["model"], "lmm"), Origin.of(models["segmenter"], "segmenter")
    from aas.segmenters import load_segmenter

    head = load_head(tmp_path / "out/head.safetensors", lmm, load_segmenter(models["segmenter"]).model, sam)
    assert isinstance(head, UNetHead) and head.shape.n_layers == 3 and head.refiner is not None
    (line,) = (json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines())
    assert line["step"] == 3 and 0 <= line["validation_iou"] <= 1 and line["n_phrases"] == 1
    assert 0 <= line["coarse_iou"] <= 1
    first = load_file(tmp_path / "out/head.safetensors")
    captured = (tmp_path / "out/cache/0/0.safetensors").stat().st_mtime_ns
    assert run.train(recipe, "cpu") == 3  # all is done: nothing is captured again, and no step is made
    assert (tmp_path / "out/cache/0/0.safetensors").stat().st_mtime_ns == captured
    assert all(
        torch.equal(tensor, first[name]) for name, tensor in load_file(tmp_path / "out/head.safetensors").items()
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"stepz": 3}, "does not know stepz"),
        ({"steps": 0}, "at least 1"),
        ({"steps": "many"}, "whole number"),
        ({"head": "none"}, "Unknown mask head"),
        ({"runs": []}, "name at least one"),
        ({"precision": "half"}, "precision: .half.: give no, bf16, fp16"),
    ],
)
def test_wrong_recipes_are_told(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        Recipe.read(recipe_of(tmp_path, tmp_path, {}, **change))


def test_the_shipped_recipes_are_whole():
    recipes = {path.stem: Recipe.read(path) for path in SHIPPED.glob("*.yaml")}
    assert recipes["unet-corrected"].learning_rate == 3e-4
    published = [recipes[f"{head}-refcoco-png"] for head in ("unet", "highres")]
    assert [recipe.epochs for recipe in published] == [8, 4]
    for recipe in published:
        rates = (recipe.learning_rate, recipe.weight_decay, recipe.warmup, recipe.clip, recipe.precision)
        assert rates == (1e-4, 0.01, 0.03, 1.0, "bf16") and not recipe.cache
        assert [entry["dataset"] for entry in recipe.data] == ["png", *["refcoco"] * 3]
        assert {entry.get("sentences", "random") for entry in recipe.data} == {"random"}
    # The checkpoint that F-LMM's authors call iter_95080 is of four epochs, if there are 190,160 photographs.
    assert replace(published[0], epochs=4.0).for_photographs(190_160, n_processes=8).steps == 95_080
    assert replace(published[0], epochs=4.0, batch_size=8).for_photographs(190_160).steps == 95_080


def test_a_head_that_looks_through_the_eyes_is_trained(tmp_path, corrected, models):
    more = {"head": "highres", "head_settings": {"width": 16}, "validation": [], "steps": 1}
    assert run.train(Recipe.read(recipe_of(tmp_path, corrected, models, **more)), "cpu") == 3
    head = load_head(tmp_path / "out/head.safetensors", Origin.of(models["model"], "lmm"))
    example = cache.read_example(tmp_path / "out/cache/0/0.safetensors")
    assert head([example.features])[0][0].values.shape == (1, 56, 56)


# ------------------------------------------------------------------------------ datasets, without a cache, looked at


def test_datasets_are_mixed_and_the_training_is_watched(tmp_path, models, capsys):
    """Three formats in one recipe, captured in the same pass; curves and pictures of what is only measured."""
    data = scenes.write_all(tmp_path / "data")
    mixed = list(entries(data).values())
    mixed[1] |= {"images": str(tmp_path)}  # where no photograph is
    measured = entries(data)["png"] | {"n_photographs": 2}
    more = {"runs": [], "data": mixed, "images": str(data / "images"), "validation": [measured], "epochs": 0.3,
            "cache": False, "tensorboard": True, "segmenter": None}  # fmt: skip
    path = recipe_of(tmp_path, tmp_path, models, **more)
    path.write_text(path.read_text().replace("steps: 3", "save_steps: 5"))
    assert run.train(Recipe.read(path), "cpu") == 3
    said = capsys.readouterr().out
    assert "2 steps on 8 photographs" in said and "left out: annotation 1001: its category has no name" in said
    assert re.search(r"left out: \d+_0: \S+\.png: no such file", said)
    assert not (tmp_path / "out/cache").exists()
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["n_phrases"]) for line in lines] == [(2, 5)]
    pictures = sorted((tmp_path / "out/pictures").iterdir())
    assert [one.name for one in pictures] == ["42_0-000002.png", "7_0-000002.png"]
    assert Image.open(pictures[1]).width > 1280
    assert curves(tmp_path / "out/tensorboard") == {"loss": [2], "validation_iou": [2], "coarse_iou": [2]}


def curves(folder: Path) -> dict[str, list[int]]:
    """The steps of each scalar, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    assert len(events.Tags()["images"]) == 2
    return {name: [one.step for one in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_what_is_captured_anew_is_what_was_kept(tmp_path, corrected, models, monkeypatch):
    """To the same bits; and a text that is longer than the context costs only its photograph."""
    with monkeypatch.context() as full, pytest.raises(ValueError, match=r"0 MiB left. Say `cache: false`"):
        full.setattr(run, "disk_usage", lambda _: SimpleNamespace(free=0))
        run.train(Recipe.read(recipe_of(tmp_path, corrected, models, segmenter=None)), "cpu")
    config = Path(models["model"]) / "config.json"
    content = json.loads(config.read_text())
    content["text_config"]["max_position_embeddings"] = 64
    config.write_text(json.dumps(content))
    result = read_result(corrected / "0.json")
    write_result(corrected / "2.json", replace(result, image_id="2", caption=f"A dog {'on a bench ' * 30}"))
    trained = []
    for kept in (True, False):
        more = {"out": str(tmp_path / f"{kept}"), "cache": kept, "segmenter": None, "validation": []}
        assert run.train(Recipe.read(recipe_of(tmp_path, corrected, models, **more)), "cpu") == 3
        trained.append(tmp_path / f"{kept}/head.safetensors")
    assert read_head_file(trained[0]) == read_head_file(trained[1])
    torch.testing.assert_close(load_file(trained[0]), load_file(trained[1]), rtol=0, atol=0)
