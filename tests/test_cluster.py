"""Items on a Ray cluster of two nodes on this machine: actors and a node that die, items that kill, what ends a run.

They run where Ray is installed (the extra `cluster`), which `dev` leaves out: docs/reliability.md says why.
"""

import socket
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from aas.engine.filling import fill
from aas.engine.stage import Work
from aas.store.addresses import folder_at
from aas.store.runs import RunFolder
from aas.store.shards import content_of
from aas.store.spools import opened
from tests import command, places
from tests.told import NUMBERS, Number, load

pytest.importorskip("ray")

from aas.engine import cluster
from aas.engine.cluster import Ray

ROOT = Path(__file__).parent.parent
START_SECONDS = 600  # of a process of Ray's, where the machine is busy
TIMEOUTS = {"gcs_server_port_wait_time_s": 1, "worker_register_timeout_seconds": 1, "agent_register_timeout_ms": 1000}
HUNDRED = [Number(f"{i:03}") for i in range(100)]


AGENTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


def free_ports() -> dict[str, int]:
    """Of the processes that a node starts beside it."""
    with ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in AGENTS]
        return {name: one.getsockname()[1] for name, one in zip(AGENTS, sockets, strict=True)}


def with_ports_said(start_raylet):
    """A node gives these processes 15 seconds to say their ports, in a file each; here it finds the files."""

    def start(node, *args, **options):
        from ray._raylet import persist_port

        for name in AGENTS:
            persist_port(node._session_dir, node._node_id, name, getattr(node._ray_params, name))
        return start_raylet(node, *args, **options)

    return start


class PatientClock:
    """`time`, by which thirty seconds are one: Ray gives its own processes 30, and lets nobody say otherwise."""

    def __getattr__(self, name: str):
        return getattr(time, name)

    def monotonic(self) -> float:
        return time.monotonic() / 30


@pytest.fixture(scope="module")
def nodes():
    """A cluster with room for an actor on each of two nodes. The first is the driver's."""
    import ray
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

    patience = {f"RAY_{name}": str(START_SECONDS * unit) for name, unit in TIMEOUTS.items()}
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", **patience}
    environment["RAY_memory_monitor_refresh_ms"] = "0"  # or Ray kills actors where others fill the memory
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr("ray._private.node.time", PatientClock())
        patch.setattr(Node, "start_raylet", with_ports_said(Node.start_raylet))
        cluster = Cluster()
        for _ in range(2):
            cluster.add_node(wait=False, num_cpus=1, include_dashboard=False, **free_ports())
        cluster.wait_for_nodes(START_SECONDS)
        ray.init(cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def filled(out: Path, loading=None, items=NUMBERS, least: int = 2, done=lambda item: None) -> int:
    work = Work(items, [], len(items))
    engine = Ray(least=least, most=2)
    return fill(RunFolder(out, ".json"), "tell", {}, work, loading or partial(load, out, {}), done, engine=engine)


def load_on(named: str, out: Path, _device: str | None):
    return load(out, {}, named)


class LowMemory:
    """`ray.get` that tells the third time of a worker that Ray killed: no other error is of that class."""

    def __init__(self):
        import ray

        self.get, self.calls = ray.get, 0

    def __call__(self, *args, **options):
        from ray.exceptions import OutOfMemoryError

        self.calls += 1
        if self.calls == 3:
            raise OutOfMemoryError("the node runs low on memory")
        return self.get(*args, **options)


def writers(out: Path) -> dict[str, str]:
    """Item -> who wrote it."""
    return {path.stem: path.read_text() for path in out.glob("[0-9]*.json")}


def test_two_actors_do_all_and_an_item_that_kills_is_given_up_alone(nodes, tmp_path: Path, monkeypatch):
    """One in a hundred; each death is that of an actor. Ray kills another, where memory is low. The run is at a URL,
    in whose store the driver alone can write: it sends what the actors wrote."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    out, trouble = folder_at("memory://ray/run"), {"005": "kill", "006": "raise"}
    monkeypatch.setattr("ray.get", LowMemory())
    with opened([out], out):
        assert filled(out, partial(load, out, trouble), HUNDRED) == 3
    with opened([out]):
        failures = RunFolder(out, ".json").failures()
        written = {key: content_of(path) for key, path in RunFolder(out, ".json").items().items()}
    assert set(failures) == set(trouble) and "given up" in failures["005"]
    assert len(written) == 98 and len(set(written.values())) >= 2
    with opened([out], out):
        assert filled(out, items=HUNDRED, least=1) == 0, "at the next start they are tried again"
    with opened([out]):
        assert RunFolder(out, ".json").n_done() == 100
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_bytes_of_a_plain_run(nodes, tmp_path: Path):
    """Two actors, the embedded model, photographs in a shard."""
    shard = places.in_tar(tmp_path / "0.tar", places.photographs())
    asking = ("--images", shard, "--max-new-tokens", 3, "--batch-size", 1, "--device", "cpu", "--workers", 0)
    assert command.run("infer-attn", *asking, "--out", tmp_path / "plain")[0] == 0
    code, said = command.run("infer-attn", *asking, "--out", tmp_path / "ray", "--engine", "ray", "--actors", 2)
    assert code == 0 and said.count("| 0/") == 1 and "| 0/3 " in said and "| 3/3 " in said, "one bar, the driver's"
    plain, by_actors = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.safetensors")}
                        for name in ("plain", "ray"))  # fmt: skip
    assert len(plain) == 3 and by_actors == plain


def test_what_an_actor_raises_as_it_starts_ends_the_run(nodes, tmp_path: Path):
    with pytest.raises(ValueError, match="no such device"):
        filled(tmp_path, partial(load_on, "broken", tmp_path), least=1)
    assert not (tmp_path / "run.json").exists()


class Kill:
    """Hears of each item that is done: lets the second actor start, and kills the second node when both did some."""

    def __init__(self, nodes, out: Path, monkeypatch):
        self.nodes, self.out, self.started, self.lost = nodes, out, [], []
        start, lose = cluster._Driver._started, cluster._Driver._lose
        monkeypatch.setattr(
            cluster._Driver, "_started", lambda driver: self.started.append(start(driver)) or self.started[-1]
        )
        monkeypatch.setattr(
            cluster._Driver, "_lose", lambda driver, actor, *of: self.lost.append(actor) or lose(driver, actor, *of)
        )

    def __call__(self, item):
        import ray

        if not self.lost and len(self.started) == 2:
            ray.wait([self.started[1].starting], timeout=START_SECONDS)
        if self.nodes.worker_nodes and len(set(writers(self.out).values())) == 2:
            (second,) = self.nodes.worker_nodes
            self.nodes.remove_node(second, allow_graceful=False)


def test_another_actor_joins_while_items_wait_and_dies_with_its_node(nodes, tmp_path: Path, monkeypatch):
    """The last of all: afterwards there is one node, without place for the actor that is to replace it."""
    kill = Kill(nodes, tmp_path, monkeypatch)
    assert filled(tmp_path, partial(load_on, "slow", tmp_path), least=1, done=kill) == 0
    (dead,) = kill.lost
    assert not nodes.worker_nodes and dead in kill.started[:2] and dead.hands, "with items in its hands"
    assert [actor.size > 0 for actor in kill.started] == [True, True, False]
    assert len(writers(tmp_path)) == 24 and not RunFolder(tmp_path, ".json").failures()
