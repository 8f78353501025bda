"""What a run that goes on notices: other files of the same names, more photographs, another run at the same moment."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from aas.engine.workers import in_workers
from aas.stages.infer_attn_options import InferAttn
from aas.stages.segment_options import Segment
from aas.store.fingerprints import ENDS, WHOLE, fingerprint
from aas.store.runs import RunFolder
from tests.command import Forked


def test_other_weights_in_the_same_folder(tmp_path: Path):
    weights = tmp_path / "model/model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    options = InferAttn(images=tmp_path, out=tmp_path / "run", model=str(weights.parent))
    run = RunFolder(options.out, ".safetensors")
    run.begin("infer-attn", options.deciding(), {})
    os.utime(weights, (0, 0))
    run.begin("infer-attn", options.deciding(), {})  # a copy is the same
    weights.write_bytes(b"weighty")
    with pytest.raises(ValueError, match="the content of --model is another"):
        run.begin("infer-attn", options.deciding(), {})


def test_other_answers_and_other_attention(tmp_path: Path):
    answers, attn = tmp_path / "answers.jsonl", tmp_path / "attn"
    attention = RunFolder(attn, ".safetensors")
    attention.begin("infer-attn", {"question": "What?"}, {"n_images": 1})
    answers.write_text("one")
    options = Segment(task="expressions", attn=attn, images=tmp_path, out=tmp_path / "run", answers=answers)
    run = RunFolder(options.out, ".json")
    run.begin("segment expressions", options.deciding(), {})
    attention.begin("infer-attn", {"question": "What?"}, {"n_images": 2})
    run.begin("segment expressions", options.deciding(), {})  # more of the same
    answers.write_text("two")
    with pytest.raises(ValueError, match=r"\(the content of --answers is another\)"):
        run.begin("segment expressions", options.deciding(), {})
    answers.write_text("one")
    attention.description_path.unlink()
    attention.begin("infer-attn", {"question": "Where?"}, {})
    with pytest.raises(ValueError, match=r"\(the content of --attn is another\)"):
        run.begin("segment expressions", options.deciding(), {})


def test_a_run_from_before_fingerprints_goes_on(tmp_path: Path):
    run = RunFolder(tmp_path / "run", ".json")
    run.begin("ground", {"seed": 0}, {})
    run.begin("ground", {"seed": 0, "files": {"model": "0123"}}, {})


def test_an_option_that_an_older_run_did_not_have_is_off(tmp_path: Path):
    run = RunFolder(tmp_path / "run", ".json")
    run.begin("ground", {"seed": 0, "view": None}, {})
    run.begin("ground", {"seed": 0, "view": None, "reasoning": False}, {})
    for changed in ({"reasoning": True}, {"view": "base"}, {"seed": 1}):
        with pytest.raises(ValueError, match="other arguments"):
            run.begin("ground", {"seed": 0, "view": None} | changed, {})


def test_a_large_file_is_told_by_its_size_and_ends(tmp_path: Path):
    large, found = tmp_path / "weights.bin", set()
    for place, size in ((0, 0), (ENDS - 1, 0), (WHOLE, 0), (0, 1)):
        with large.open("wb") as file:
            file.truncate(WHOLE + 1 + size)
            file.seek(place)
            file.write(b"x")
        found.add(fingerprint(large))
    assert len(found) == 4 and fingerprint(tmp_path / "none") is None


def test_the_number_of_images_grows(tmp_path: Path):
    run = RunFolder(tmp_path / "run", ".json")
    for n in (10, 60):
        run.begin("ground", {}, {"n_images": n, "versions": n})
    assert json.loads(run.description_path.read_text()) | {} == run.description()
    assert run.description()["n_images"] == 60 and run.description()["versions"] == 10


def _begin(folder: Path, question: str, barrier, let_in) -> None:
    barrier.wait()
    try:
        RunFolder(folder, ".json").begin("ground", {"question": question}, {})
        let_in.put(question)
    except ValueError:
        let_in.put(None)


def test_of_two_runs_at_one_moment_one_is_let_in(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    for i in range(20):
        barrier, let_in = context.Barrier(2), context.Queue()
        both = [context.Process(target=_begin, args=(tmp_path / str(i), name, barrier, let_in)) for name in "ab"]
        for one in both:
            one.start()
        found = {let_in.get(timeout=20) for _ in both}
        for one in both:
            one.join()
        (name,) = found - {None}
        assert None in found and RunFolder(tmp_path / str(i), "").description()["arguments"] == {"question": name}
        assert [path.name for path in (tmp_path / str(i)).iterdir()] == ["run.json"]


def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path):
    run = RunFolder(tmp_path, ".json")
    run.fail("a", "broken")
    with run.failed_path.open("a") as file:
        file.write('{"image": "b", "err')
    run.fail("c", "broken too")
    assert run.failures() == {"a": "broken", "c": "broken too"}
    run.forget_failures({"a"})
    assert run.failures() == {"c": "broken too"}


def with_workers() -> None:
    """Says which they are, and is killed."""
    made = in_workers(lambda _: (os.getpid(), np.zeros(10_000_000, np.uint8)), range(100), 2)  # a pipe holds less
    print(*{next(made)[1][0] for _ in range(4)}, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def test_no_worker_outlives_a_killed_run():
    with Forked(with_workers) as process:
        code, stdout, _ = process.ended(60)
    assert code == -signal.SIGKILL
    workers = [int(pid) for pid in stdout.split()]
    assert len(workers) == 2
    until = time.monotonic() + 20
    while any(is_running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(is_running(pid) for pid in workers)


def is_running(pid: int) -> bool:
    """Not gone, and no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
