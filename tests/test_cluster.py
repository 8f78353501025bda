"""Items on a Ray cluster of this machine: two actors, one that dies, items that kill, what ends a run."""

import os
from functools import partial
from pathlib import Path

import pytest

from aas.engine.filling import fill
from aas.engine.stage import Work
from aas.store.runs import RunFolder
from tests import command, places
from tests.told import NUMBERS, load

pytest.importorskip("ray")

from aas.engine import cluster
from aas.engine.cluster import Ray

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def ray():
    import ray

    os.environ["RAY_AUTH_MODE"] = "disabled"
    environment = {"env_vars": {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}}
    try:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    except Exception as error:  # it gives its own processes 30 seconds to start
        pytest.skip(f"Ray does not start on this machine, which may be too busy: {error}")
    yield ray
    ray.shutdown()


def filled(out: Path, trouble: dict[str, str] | None = None, device: str | None = None, least: int = 2) -> int:
    loading = partial(load, out, trouble or {})
    if device:
        loading = partial(load_on, device, out)
    return fill(RunFolder(out, ".json"), "tell", {}, Work(NUMBERS, [], 24), loading, engine=Ray(least=least, most=2))


def load_on(named: str, out: Path, _device: str | None):
    return load(out, {}, named)


def test_two_actors_do_all_and_an_item_that_kills_is_given_up_alone(ray, tmp_path: Path):
    trouble = {"05": "kill", "06": "raise"}
    assert filled(tmp_path, trouble) == 3
    failures = RunFolder(tmp_path, ".json").failures()
    assert set(failures) == set(trouble) and "given up" in failures["05"]
    written = [path.read_text() for path in tmp_path.glob("[0-9]*.json")]
    assert len(written) == 22 and len(set(written)) >= 2
    assert filled(tmp_path) == 0, "at the next start they are tried again"


def test_another_actor_is_asked_for_while_items_wait(ray, tmp_path: Path, monkeypatch):
    started = []
    start = cluster._Driver._started
    monkeypatch.setattr(cluster._Driver, "_started", lambda driver: started.append(driver) or start(driver))
    assert filled(tmp_path, least=1) == 0
    assert len(started) == 2 and len(list(tmp_path.glob("[0-9]*.json"))) == 24


def test_the_bytes_of_a_plain_run(ray, tmp_path: Path):
    """Two actors, the embedded model, photographs in a shard."""
    shard = places.in_tar(tmp_path / "0.tar", places.photographs())
    asking = ("--images", shard, "--max-new-tokens", 3, "--batch-size", 1, "--device", "cpu", "--workers", 0)
    assert command.run("infer-attn", *asking, "--out", tmp_path / "plain")[0] == 0
    assert command.run("infer-attn", *asking, "--out", tmp_path / "ray", "--engine", "ray", "--actors", "1:2")[0] == 0
    plain, by_actors = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.safetensors")}
                        for name in ("plain", "ray"))  # fmt: skip
    assert len(plain) == 3 and by_actors == plain


def test_what_an_actor_raises_as_it_starts_ends_the_run(ray, tmp_path: Path):
    with pytest.raises(ValueError, match="no such device"):
        filled(tmp_path, device="broken")
    assert not (tmp_path / "run.json").exists()
