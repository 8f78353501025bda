"""Runs that many processes fill: status by cause and by worker, verify, merge, retry, and the script for SLURM."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from aas.store.causes import by_cause
from aas.store.heartbeats import Heartbeat, forget_killed, workers
from aas.store.status import duration, status, status_text
from tests import tiny
from tests.command import run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.saved(tiny.family("llava"), tmp_path_factory.mktemp("model"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tiny.photographs(tmp_path / "photos", [(40, 40)] * 4)


def asked(photos: Path, model: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("infer-attn", "--images", photos, "--model", model, "--max-new-tokens", 2, "--out", out, *more)


def items(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


# --------------------------------------------------------------------------------------------------------- status


def test_failures_of_one_cause_are_one_line():
    found = by_cause(
        {
            "a.jpg": "/photos/a.jpg: 12000 x 9000 pixels are more than 100 megapixels; shrink it first",
            "b.jpg": "/photos/b.jpg: the file is empty (0 bytes)",
            "c.jpg": "/photos/c.jpg: 30000 x 9000 pixels are more than 100 megapixels; shrink it first",
            "d.jpg": "d.jpg: no attention item in attn; run `aas infer-attn` for it",
            "e": "CUDA error: an illegal memory access",
        }
    )
    assert list(found.values()) == [["a.jpg", "c.jpg"], ["b.jpg"], ["d.jpg"], ["e"]]
    assert next(iter(found)) == "N x N pixels are more than N megapixels; shrink it first"
    assert list(found)[-1] == "CUDA error: an illegal memory access"


def test_status_tells_speed_and_time_left_of_those_at_work(tmp_path: Path):
    (tmp_path / "run.json").write_text(json.dumps({"command": "infer-attn", "n_images": 101}))
    (tmp_path / "a.safetensors").write_text("")
    with Heartbeat(tmp_path, 2, 8) as heartbeat:
        heartbeat.worker.began -= 1000
        for failed in [False] * 19 + [True]:
            heartbeat.worker.told = 0  # as if five seconds were over
            heartbeat.count(failed)
        found = status(tmp_path)
        assert found["images_per_second"] == pytest.approx(0.02, rel=0.1)
        assert found["seconds_left"] == pytest.approx(5000, rel=0.1)
        assert re.search(
            r"chunk 2 of 8: 19 done, 1 failed, 0\.0(2|19\d?) images/s$", status_text(tmp_path, found), re.M
        )
        there = next((tmp_path / ".workers").iterdir())
        killed = json.loads(there.read_text()) | {"pid": 2**22 + 1, "told": time.time() - 600}
        (there.parent / "killed.json").write_text(json.dumps(killed))
        (there.parent / "damaged.json").write_text("{")
        assert "silent for 10 min" in status_text(tmp_path, status(tmp_path))
        assert status(tmp_path)["images_per_second"] == pytest.approx(0.02, rel=0.1)
        (there.parent / "damaged.json").unlink()
        forget_killed(tmp_path)
        assert len(workers(tmp_path)) == 1, "what was killed is forgotten"
    assert not (tmp_path / ".workers").exists()


def test_durations():
    assert [duration(s) for s in (59.6, 720, 12600, 181440)] == ["60 s", "12 min", "3.5 h", "2.1 days"]


# --------------------------------------------------------------------------------------- verify, retry and merge


def test_verify_tells_lost_bits_and_files_that_do_not_belong_here(photos: Path, model: Path, tmp_path: Path):
    out = tmp_path / "run"
    assert run(*asked(photos, model, out))[0] == 0 and run("verify", out)[0] == 0
    path = out / "1.png.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # of a map: it still opens
    path.write_bytes(content)
    shutil.copy(out / "2.png.safetensors", out / "new.png.safetensors")
    code, said = run("verify", out)
    assert code == 1 and "1.png.safetensors has other bytes" in said and "new.png.safetensors is of no image" in said
    assert "2 damaged" in said
    path.unlink(), (out / "new.png.safetensors").unlink()
    assert run(*asked(photos, model, out))[0] == 0 and run("verify", out)[0] == 0


def test_retry_does_what_failed_and_nothing_else(photos: Path, model: Path, tmp_path: Path):
    out, good = tmp_path / "run", (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(good[:50])
    (photos / "3.png").write_bytes(b"")
    assert run(*asked(photos, model, out, "--seed", 3, "--layers", "0"))[0] == 3
    (photos / "1.png").write_bytes(good)
    (out / "2.png.safetensors").unlink()  # waits, and did not fail
    code, said = run("retry", out)
    assert code == 3 and "1 done, 0 were there, 1 failed" in said
    assert sorted(items(out)) == ["0.png.safetensors", "1.png.safetensors"]
    assert status(out)["causes"] == {"the file is empty (N bytes)": 1}
    (photos / "3.png").write_bytes(good)
    assert run("retry", out)[0] == 0 and run("retry", out)[0] == 0
    (out / "run.json").write_text(json.dumps(json.loads((out / "run.json").read_text()) | {"options": None}))
    code, said = run("retry", out)
    assert code == 2 and "repeat its command" in said


def test_retry_of_every_stage(photos: Path, model: Path, tmp_path: Path):
    """The options of each come back as they were: tuples, paths, numbers."""
    attn, masks, grounded = (tmp_path / name for name in ("attn", "masks", "grounded"))
    run(*asked(photos, model, attn))
    good = (photos / "0.png").read_bytes()
    (photos / "0.png").write_bytes(b"")
    segment = ("segment", "gcg", "--attn", attn, "--images", photos, "--out", masks, "--drop", "pronouns")
    ground = ("ground", photos, "--out", grounded, "--model", model, "--answer", "a dog", "--drop", "pronouns")
    assert run(*segment)[0] == run(*ground)[0] == 3
    (photos / "0.png").write_bytes(good)
    assert run("retry", masks)[0] == run("retry", grounded)[0] == 0
    assert run("status", masks, "--json")[1] and status(grounded)["done"] == status(masks)["done"] == 4


def test_merged_folders_are_the_run_of_all(photos: Path, model: Path, tmp_path: Path):
    parts = [tmp_path / f"part{i}" for i in range(2)]
    for i, part in enumerate(parts):
        assert run(*asked(photos, model, part, "--num-chunks", 2, "--chunk-idx", i))[0] == 0
    assert run(*asked(photos, model, tmp_path / "all"))[0] == 0
    code, said = run("merge", *parts, tmp_path / "merged")
    assert code == 0 and said.strip() == str(tmp_path / "merged")
    assert list(items(tmp_path / "merged")) == list(items(tmp_path / "all"))
    assert run("verify", tmp_path / "merged")[0] == 0 and status(tmp_path / "merged")["waiting"] == 0
    code, said = run(*asked(photos, model, tmp_path / "merged"))
    assert code == 0 and "0 done, 4 were there" in said
    assert run("merge", *parts, tmp_path / "merged")[0] == 0, "again: nothing is new"


def test_folders_that_do_not_fit_are_not_merged(photos: Path, model: Path, tmp_path: Path):
    for i, seed in enumerate((1, 2)):
        run(*asked(photos, model, tmp_path / str(i), "--seed", seed))
    code, said = run("merge", tmp_path / "0", tmp_path / "1", tmp_path / "out")
    assert code == 2 and "seed was 1 and is now 2" in said and not (tmp_path / "out").exists()
    shutil.copytree(tmp_path / "0", tmp_path / "2")
    (tmp_path / "2/1.png.safetensors").write_bytes(b"other")
    code, said = run("merge", tmp_path / "0", tmp_path / "2", tmp_path / "out")
    assert code == 2 and "are different results" in said and not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------ SLURM


@pytest.mark.parametrize(("code", "queued"), [(0, False), (3, False), (75, True)])
def test_the_script_for_slurm_runs_its_part_and_is_queued_again(tmp_path: Path, code: int, queued: bool):
    """In bash, with programs that stand for SLURM's."""
    answer, script = run(
        "slurm", "--tasks", 4, "--partition", "gpu", "--", "infer-attn", "--images", "my photos", "--out", "r"
    )
    assert answer == 0 and "--array=0-3" in script and "--partition=gpu" in script and "--signal=USR1@120" in script
    for name, body in {"srun": f'printf "%s|" "$@" >> calls; exit {code}', "scontrol": 'echo "$@" >> calls'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2"}
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == code
    calls = (tmp_path / "calls").read_text()
    assert calls == "aas|infer-attn|--images|my photos|--out|r|" + "requeue 17_2\n" * queued


@pytest.mark.parametrize("command", ["eval gcg", "infer-attn --num-chunks 8", "infer-attn --chunk-idx=1", "aas"])
def test_what_slurm_cannot_share_out(command: str):
    assert run("slurm", "--", *command.split())[0] == 2
