"""Training on what was said: rows that a stage cannot learn from, and what a run that goes on was begun with."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")
pytest.importorskip("peft")
from PIL import Image
from typer.testing import CliRunner

from difflmm.cli import app
from difflmm.train import train
from difflmm.train.folder import RECIPE
from difflmm.train.sources import SOURCES
from tests.test_difflmm_train import changed, log, parts, recipe  # noqa: F401  a fixture among them


def words(i: int) -> dict[str, object]:
    turns = [("human", f"Hello {i}?"), ("gpt", "Fine, thank you very much.")]
    return {"id": f"t{i}", "conversations": [{"from": who, "value": text} for who, text in turns]}


@pytest.fixture
def mixed(parts, tmp_path) -> Path:  # noqa: F811
    """As many rows without an image as with one."""
    rows = [row for row in json.loads((parts / "data.json").read_text()) if "image" in row][:6]
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps([row for i, one in enumerate(rows) for row in (one, words(i))]))
    return path


# --------------------------------------------------------------------------------------------- rows without an image


@pytest.mark.parametrize(
    "changes",
    [{"gradient_checkpointing": True}, {"group_by_length": False, "device_batch_size": 1, "workers": 1},
     {"encoder": "clip", "diffusion": None, "encoder_options": None}],
    ids=["grouped-checkpointing", "not-grouped-one-at-a-time-workers", "clip"],
)  # fmt: skip
def test_stage_1_leaves_rows_without_an_image_out_and_says_so(parts, mixed, tmp_path, capsys, changes):  # noqa: F811
    """The same weights as of the other rows alone, bit for bit."""
    out = train(recipe(parts, tmp_path / "out", stage=1, data=mixed, max_steps=4, **changes))
    assert "6 of 12 rows are skipped: 6 x no image, and stage 1 trains" in capsys.readouterr().err
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [each["row"] for each in skipped] == [1, 3, 5, 7, 9, 11]
    mixed.write_text(json.dumps(json.loads(mixed.read_text())[::2]))
    other = train(recipe(parts, tmp_path / "other", stage=1, data=mixed, max_steps=4, **changes))
    assert not changed(load_file(out / "model.safetensors"), load_file(other / "model.safetensors"))


def test_stage_1_without_any_image_is_an_error_before_a_model_is_loaded(parts, mixed, tmp_path):  # noqa: F811
    mixed.write_text(json.dumps([words(i) for i in range(4)]))
    with pytest.raises(ValueError, match=r"no row can be used\. 4 x no image, and stage 1"):
        train(recipe(parts, tmp_path / "out", stage=1, data=mixed, llm="nowhere"))


@pytest.mark.parametrize("features", [None, "features"])
def test_stage_2_learns_from_words_alone(parts, mixed, tmp_path, features):  # noqa: F811
    mixed.write_text(json.dumps([words(i) for i in range(6)]))
    kept = tmp_path / features if features else None
    out = train(recipe(parts, tmp_path / "out", data=mixed, features=kept))
    assert len(log(out)) == 2 and not (out / "skipped.jsonl").exists()


@pytest.mark.parametrize("turn", [0, 1])
def test_half_an_emoji_costs_its_row_alone(parts, tmp_path, turn):  # noqa: F811
    rows = json.loads((parts / "data.json").read_text())[:5]
    rows[3]["conversations"][turn]["value"] += " \ud83d"
    rows.append(rows[0] | {"id": "name", "image": "\ud83d.png"})
    (tmp_path / "data.json").write_text("\ufeff" + json.dumps(rows), encoding="utf-8")
    out = train(recipe(parts, tmp_path / "out", data=tmp_path / "data.json", max_steps=1))
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [each["row"] for each in skipped] == [3, 5]
    assert "half a character" in skipped[0]["error"] and "no such file" in skipped[1]["error"]


# ----------------------------------------------------------------------------------------------- what is gone on with


@pytest.fixture
def broken(parts, tmp_path) -> Path:  # noqa: F811
    """A folder with data, images, models and a recipe of their own, and a run in it that was broken off."""
    for name in ("llm", "diffusion", "clip", "pictures"):
        shutil.copytree(parts / name, tmp_path / name)
    shutil.copy(parts / "data.json", tmp_path)
    out = train(of(tmp_path))
    (out / "config.json").unlink()
    return tmp_path


def of(folder: Path, **changes: object):
    return recipe(folder, folder / "out", max_steps=2, save_steps=1, **changes)


def fewer_rows(folder: Path) -> None:
    rows = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(rows[:-1]))


def another_answer(folder: Path) -> None:
    text = (folder / "data.json").read_text()
    (folder / "data.json").write_text(text.replace("A red", "A new", 1))


def another_order(folder: Path) -> None:
    rows = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(rows[::-1]))


def another_image(folder: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(folder / "pictures/0003.png")


def an_image_less(folder: Path) -> None:
    (folder / "pictures/0003.png").unlink()


def another_llm(folder: Path) -> None:
    weights = load_file(folder / "llm/model.safetensors")
    weights = {name: weight.clone() for name, weight in weights.items()}
    weights["model.layers.0.mlp.up_proj.weight"] *= 1.01
    save_file(weights, folder / "llm/model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (fewer_rows, "number of rows (13 then, 12 now), rows of the data, images:"),
        (another_answer, "other rows of the data:"),
        (another_order, "other rows of the data, images"),
        (another_image, "other images:"),
        (an_image_less, "number of rows (13 then, 12 now)"),
        (another_llm, "other model:"),
    ],
)
def test_a_run_does_not_go_on_with_other_things(broken, change, told):
    change(broken)
    noted = (broken / "out" / SOURCES).read_text()
    for _ in range(2):  # nor when it is tried again
        with pytest.raises(ValueError, match=r"put back what it was made with, take another out, or remove ") as error:
            train(of(broken))
        assert "checkpoint-2 was made with other " in str(error.value) and told in str(error.value)
        assert "\n" not in str(error.value) and (broken / "out" / SOURCES).read_text() == noted


def test_it_goes_on_where_nothing_counts_that_changed(broken):
    """JSON written in another way; an image under another name and what stood beside it."""
    rows = json.loads((broken / "data.json").read_text())
    (broken / "pictures/0003.png").rename(broken / "pictures/renamed.png")
    rows[3]["image"] = "renamed.png"
    (broken / "data.json").write_text(json.dumps(rows, indent=3))
    (broken / "pictures/notes.txt").write_text("none")
    train(of(broken))


def test_nothing_is_refused_before_the_first_checkpoint(broken):
    shutil.rmtree(broken / "out/checkpoints")
    fewer_rows(broken)
    train(of(broken))


def test_a_run_of_an_older_version_goes_on(broken):
    """Its recipe lacks what came later, and there is no note of its sources."""
    path = broken / "out" / RECIPE
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "keep_adapter" not in line))
    (broken / "out" / SOURCES).unlink()
    train(of(broken))


def test_another_recipe_says_what_is_other(broken):
    with pytest.raises(
        ValueError, match=r"another recipe \(.*recipe.yaml; max_length was 256, now 200, seed was 42, now 7"
    ):
        train(of(broken, max_length=200, seed=7))
    (broken / "out" / RECIPE).write_text("nonsense: 1\n")
    with pytest.raises(ValueError, match=r"another recipe .*not read any more: .*unknown nonsense"):
        train(of(broken))


def test_the_command_says_it_in_one_line(broken):
    (broken / "mine.yaml").write_text(of(broken).to_yaml())
    another_image(broken)
    result = CliRunner().invoke(app, ["train", "--config", str(broken / "mine.yaml")])
    assert result.exit_code == 2 and result.stderr.strip().splitlines()[-1].startswith("difflmm: ")
    assert "was made with other images" in result.stderr
    (broken / "out" / SOURCES).write_text("[")
    result = CliRunner().invoke(app, ["train", "--config", str(broken / "mine.yaml")])
    assert result.exit_code == 2 and "sources.json is damaged" in result.stderr
