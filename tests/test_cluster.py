"""Items on a Ray cluster of this machine: two actors, one that dies, items that kill, what ends a run."""

import os
from functools import partial
from pathlib import Path

import pytest

from aas.engine.filling import fill
from aas.engine.stage import Work
from aas.store.runs import RunFolder
from tests.told import NUMBERS, load

pytest.importorskip("ray")

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


def filled(out: Path, trouble: dict[str, str] | None = None, device: str | None = None) -> int:
    loading = partial(load, out, trouble or {})
    if device:
        loading = partial(load_on, device, out)
    return fill(RunFolder(out, ".json"), "tell", {}, Work(NUMBERS, [], 24), loading, engine=Ray(most=2))


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


def test_what_an_actor_raises_as_it_starts_ends_the_run(ray, tmp_path: Path):
    with pytest.raises(ValueError, match="no such device"):
        filled(tmp_path, device="broken")
    assert not (tmp_path / "run.json").exists()
