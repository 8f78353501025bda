"""Which part of the images a process does by itself: torchrun's ranks, SLURM's arrays, both, and flags, which win."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from aas import devices
from aas.cli import app
from aas.engine.chunks import Chunk, chunk_said_by
from aas.stages.infer_attn_options import InferAttn
from tests import tiny

ARRAY = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "7",
         "SLURM_ARRAY_TASK_STEP": "2"}  # fmt: skip


def part(**environment: str) -> tuple[int, int]:
    chunk = chunk_said_by(environment)
    return chunk.count, chunk.index


def test_how_many_actors():
    def actors(said: object) -> tuple[int, int]:
        options = InferAttn(images=Path("."), out=Path("."), engine="ray", actors=said)  # type: ignore[arg-type]
        return options.least_and_most_actors

    assert [actors(said) for said in ("3", "2:16", 4)] == [(3, 3), (2, 16), (4, 4)]
    for said in ("0", "3:2", "1:2:3", "a", "", "-1", ":4"):
        with pytest.raises(ValueError, match="give a number above 0, or MIN:MAX"):
            actors(said)


def test_what_launchers_say():
    assert part() == part(RANK="3") == part(WORLD_SIZE="8") == (1, 0)
    assert part(RANK="3", WORLD_SIZE="8") == (8, 3)
    assert part(SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_COUNT="4") == (4, 2)
    assert [part(SLURM_ARRAY_TASK_ID=i, **ARRAY) for i in "1357"] == [(4, 0), (4, 1), (4, 2), (4, 3)]


def test_ranks_within_an_array_share_its_tasks_out():
    both = {
        part(RANK=str(rank), WORLD_SIZE="3", SLURM_ARRAY_TASK_ID=task, **ARRAY) for rank in range(3) for task in "1357"
    }
    assert both == {(12, index) for index in range(12)}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "8", "WORLD_SIZE": "8"}, "not below"),
        ({"RANK": "a", "WORLD_SIZE": "8"}, "RANK='a' is no number"),
        ({"SLURM_ARRAY_TASK_ID": "2", **ARRAY}, "no range"),
        ({"SLURM_ARRAY_TASK_ID": "3", **ARRAY, "SLURM_ARRAY_TASK_COUNT": "2"}, "no range"),  # --array=1,3,7
    ],
)
def test_what_cannot_be_a_part(environment: dict[str, str], said: str):
    with pytest.raises(ValueError, match=said):
        chunk_said_by(environment)


def test_flags_win(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    given = {"images": Path("photos"), "out": Path("run")}
    assert InferAttn(**given).chunk == Chunk(8, 3, "RANK and WORLD_SIZE")
    assert InferAttn(**given, num_chunks=2, chunk_idx=1).chunk == Chunk(2, 1)
    assert InferAttn(**given, num_chunks=1).chunk == Chunk()


def test_each_process_has_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.default_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.default_device() == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "5")  # the launcher shows each process one GPU
    assert devices.default_device() == "cuda"


def test_ranks_fill_one_folder_and_say_which_they_are(tmp_path: Path, monkeypatch):
    """With another number of them after a restart, too."""
    photos, out = tiny.photographs(tmp_path / "photos", [(40, 40)] * 5), tmp_path / "run"
    model = tiny.saved(tiny.family("llava"), tmp_path / "model")
    command = ["infer-attn", "--images", str(photos), "--model", str(model), "--out", str(out), "--max-new-tokens", "2"]
    for rank, world_size, there in (("1", "2", 2), ("2", "3", 3), ("0", "1", 5)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", world_size)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0 and f"chunk {rank} of {world_size}" in result.output
        assert len(list(out.glob("*.safetensors"))) == there
    assert json.loads((out / "run.json").read_text())["n_images"] == 5
