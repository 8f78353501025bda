"""`difflmm`: what ends a command is one line that says what to do; a damaged checkpoint of a training costs little."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

pytest.importorskip("diffusers")
pytest.importorskip("peft")

from difflmm.checkpoint import convert, load_checkpoint
from difflmm.cli import app
from difflmm.data.rows import read_rows, summary
from difflmm.recipe import read_recipe
from difflmm.train import train
from difflmm.train.folder import checked_checkpoint
from difflmm.usage import usage_errors
from tests import tiny

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
RECIPES = Path(__file__).parent.parent / "recipes"

ROOT = Path(__file__).parent.parent


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tiny.saved(tiny.family("llava"), tmp_path / "llava")


def line_of(folder: Path) -> str:
    result = CliRunner().invoke(app, ["info", str(folder)])
    assert result.exit_code == 2, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("difflmm: ")]
    assert len(lines) == 1 and "Traceback" not in result.output
    return lines[0]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json", "model.safetensors"])
def test_a_checkpoint_that_is_not_whole(checkpoint, name):
    content = (checkpoint / name).read_bytes()
    (checkpoint / name).write_text(POINTER)
    assert f"{name} is a pointer of Git LFS" in line_of(checkpoint)
    (checkpoint / name).write_bytes(content[: len(content) // 2])
    assert f"{name} is damaged" in line_of(checkpoint)
    (checkpoint / name).write_bytes(b"[]")
    assert f"{name} is damaged" in line_of(checkpoint)


def test_a_config_that_does_not_fit(checkpoint):
    path = checkpoint / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "vptq"}}))
    assert "cannot be loaded: ImportError" in line_of(checkpoint) and "vptq" in line_of(checkpoint)
    path.write_text(json.dumps({**config, "text_config": {**config["text_config"], "intermediate_size": 200}}))
    assert "by config.json it has" in line_of(checkpoint)


def test_devices_that_are_not_there(checkpoint):
    for device in ("nonsense", "meta", "cpu:x", *([] if torch.cuda.is_available() else ["cuda"])):
        result = CliRunner().invoke(app, ["chat", "--model", str(checkpoint), "--device", device])
        assert result.exit_code == 2 and "give cpu, cuda" in result.output


def test_what_cannot_be_written_is_told_first(checkpoint, tmp_path, monkeypatch):
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/a/temporary/name")

    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        convert(str(checkpoint), tmp_path / "file" / "out")
    monkeypatch.setattr("difflmm.files.TemporaryFile", read_only)
    monkeypatch.setattr("difflmm.checkpoint.load_checkpoint", lambda *_: pytest.fail("a model was loaded"))
    result = CliRunner().invoke(app, ["convert", str(checkpoint), str(tmp_path / "out")])
    assert result.exit_code == 2 and "the file system cannot be written" in result.output
    recipe = ["--config", str(RECIPES / "tiny.yaml"), "--set", f"out={tmp_path / 'run'}"]
    result = CliRunner().invoke(app, ["train", *recipe])
    assert result.exit_code == 2 and "the file system cannot be written" in result.output
    assert not (tmp_path / "run").exists()


def test_errors_of_files(capsys):
    with pytest.raises(typer.Exit) as raised, usage_errors():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", "a/folder")
    assert raised.value.exit_code == 2 and "a/folder" in capsys.readouterr().err
    with pytest.raises(OSError, match="closed"), usage_errors():
        raise OSError(errno.EBADF, "a file that we closed")


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"from": "user", "value": "hi"}, "a turn is from 'user', not from human or gpt"),
        ({"from": "system", "value": "hi"}, "a turn is from 'system', not from human or gpt"),
        ({"from": None, "value": "hi"}, "a turn is from 'None', not from human or gpt"),
        ({"from": "human", "value": None}, "a turn's value is no text"),
        ({"value": "hi"}, "a turn does not say who it is from"),
        (None, "a turn does not say who it is from"),
    ],
)
def test_why_a_row_is_skipped(tmp_path, turn, reason):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": "1", "conversations": [turn, {"from": "gpt", "value": "yes"}]}]), "utf-8-sig")
    rows, skipped = read_rows(path, None, plain=False)
    assert not rows and summary(skipped) == f"1 x {reason}"


def tiny_recipe(out: Path, *changes: str):
    same = ("encoder=clip", "max_steps=4", "save_steps=2", "keep_checkpoints=2", "log_steps=1", "workers=0")
    return read_recipe(RECIPES / "tiny.yaml", [f"out={out}", *same, *changes])


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path, capsys):
    recipe = tiny_recipe(tmp_path / "run")
    train(recipe)
    (recipe.out / "config.json").unlink()  # as a run that was stopped before its end
    last, before = (recipe.out / "checkpoints" / f"checkpoint-{step}" for step in (4, 2))
    assert checked_checkpoint(recipe) == str(last)
    for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        content = (last / name).read_bytes()
        (last / name).write_bytes(content[: len(content) // 2])
        assert checked_checkpoint(recipe) == str(before)
        assert f"{last / name} is missing, damaged or cut off" in capsys.readouterr().err
        (last / name).write_bytes(content)
    (last / "adapter_model.safetensors").unlink()
    assert checked_checkpoint(recipe) == str(before)
    shutil.rmtree(before)
    assert checked_checkpoint(recipe) is None


def test_a_loss_that_is_no_number_ends_a_training(tmp_path, monkeypatch):
    recipe = tiny_recipe(tmp_path / "run", "projector_learning_rate=1e30", "lora_learning_rate=1e30", "warmup=0",
                         "max_grad_norm=0")  # fmt: skip
    with pytest.raises(ValueError, match=r"The loss of step [234] is (nan|inf).*precision: float32"):
        train(recipe)
    assert not (recipe.out / "config.json").exists()


def test_load_checkpoint_says_what_is_ours_as_it_is(checkpoint):
    with pytest.raises(ValueError, match=r"^Unknown dtype"):
        load_checkpoint(str(checkpoint), dtype="float7")


def test_both_packages_stop_alike():
    """Neither imports the other: all but their names and what goes on is word for word the same."""
    files = (ROOT / "difflmm/stopping.py", ROOT / "aas/cli/stopping.py")
    ours, theirs = (file.read_text().splitlines()[1:] for file in files)
    what_goes_on, names = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
    assert all(line.startswith("LINE = ") for line in what_goes_on)
    assert "aas: {LINE}" in names[1] and names[0] == names[1].replace("aas:", "difflmm:")
