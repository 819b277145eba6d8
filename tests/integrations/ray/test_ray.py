"""Fleets on a real cluster of two nodes, of which one is lost; and models in memory once for each node."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

ray = pytest.importorskip("ray")

import tensafe  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from tensafe import fleet  # noqa: E402
from tensafe.integrations.ray import HostModel, load_once_per_host, scan  # noqa: E402

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from faulty import Logged, Poisoned, Slow  # noqa: E402
from page import run_page  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two nodes of one processor each, with raylets and workers of their own; the driver is on the first."""
    # Workers import what this process does.
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Cluster(initialize_head=True, head_node_args=NODE)
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def second(cluster: Cluster) -> Any:
    """The node that can be lost. It is there for the tests after, unless one loses it."""
    if not cluster.worker_nodes:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
    (node,) = cluster.worker_nodes
    return node


@pytest.fixture
def many(tmp_path: Path) -> Path:
    directory = tmp_path / "many"
    directory.mkdir()
    for number in range(200):
        np.save(directory / f"f{number:03}.npy", np.full(4, number))
    return directory


def alike(rows: Iterator[fleet.Row]) -> dict[str, fleet.Row]:
    """Rows without what says who did the work, and when."""
    found = list(rows)
    made = {row.path: replace(row, seconds=0.0, host="", attempts=1) for row in found}
    assert len(made) == len(found), "a file with two rows"
    return made


@pytest.mark.parametrize("what", ["scan", "verify"])
def test_rows_are_those_of_the_local_engine(cluster: Cluster, second: Any, what: str) -> None:
    paths = [ROOT / "corpus", ROOT / "pickles" / "benign" / "handmade", ROOT / "missing"]
    here = alike(fleet.run(what, paths))
    there = alike(fleet.run(what, paths, engine="ray"))
    assert there == here and len(here) > 100


def test_conversions_write_the_same_files(cluster: Cluster, many: Path, tmp_path: Path) -> None:
    (many / "bad.pkl").write_bytes(b"cos\nsystem\n(S'touch MUST-NOT-EXIST'\ntR.")
    for engine in ("local", "ray"):
        rows = fleet.run("convert", many, engine=engine, output=str(tmp_path / engine))
        assert Counter(row.status for row in rows) == {"ok": 200, "refused": 1}
    for path in (tmp_path / "local").iterdir():
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes()


def test_a_file_that_kills_its_worker_costs_its_own_row_alone(cluster: Cluster, many: Path) -> None:
    poison = many / "poison.npy"
    poison.write_bytes(b"")
    rows = list(fleet.run(Poisoned(), many, engine="ray", batch=16, attempts=2))
    assert len(rows) == len({row.path for row in rows}) == 201
    (bad,) = [row for row in rows if row.status != "ok"]
    assert bad.path == str(poison) and bad.status == "failed"
    assert "worker died 2 times" in (bad.error or "")


def test_another_tensafe_on_a_node_ends_the_run(
    cluster: Cluster, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tensafe.integrations.ray.__version__", "9.9")
    with pytest.raises(tensafe.UsageError, match="needed 9.9"):
        list(scan(many))


def test_a_run_whose_driver_was_killed_goes_on(cluster: Cluster, many: Path, tmp_path: Path) -> None:
    progress, log = tmp_path / "progress.jsonl", tmp_path / "log"
    program = [sys.executable, str(Path(__file__).with_name("faulty.py"))]
    child = subprocess.Popen([*program, many, progress, cluster.address], stdout=subprocess.PIPE)
    while not progress.exists() or progress.read_text().count('"status"') < 40:
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    # Ray ends the workers of a driver that is gone.
    before = -1
    while (now := len(log.read_text().splitlines())) != before:
        before = now
        time.sleep(0.5)
    noted = {json.loads(line)["path"] for line in progress.read_text().splitlines()[1:] if line.endswith("}")}
    assert 40 <= len(noted) < 200
    rows = list(fleet.run(Logged(), many, engine="ray", progress=progress, batch=4))
    assert {row.path for row in rows} == {str(path) for path in many.iterdir()} and len(rows) == 200
    assert {row.status for row in rows} == {"ok"}
    worked = Counter(log.read_text().splitlines())
    # Two batches for each processor were in hand.
    twice = {path for path, times in worked.items() if times > 1}
    assert len(worked) == 200 and len(twice) <= 4 * 4 and not twice & noted


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_a_model_is_in_memory_once_for_each_node(
    cluster: Cluster, second: Any, tmp_path: Path, framework: str
) -> None:
    torch = pytest.importorskip("torch")
    from tensafe.torch import save_file

    # 64 MiB in two shards, so that a copy would be seen.
    tensors = {f"w{n}": torch.randn(2048, 2048) for n in range(4)}
    tensors["bf"] = torch.arange(8, dtype=torch.bfloat16)
    names = {
        "model-00001-of-00002.safetensors": ["w0", "w1"],
        "model-00002-of-00002.safetensors": ["w2", "w3", "bf"],
    }
    for file, keys in names.items():
        save_file({key: tensors[key] for key in keys}, tmp_path / file)
    index = {key: file for file, keys in names.items() for key in keys}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))

    model = load_once_per_host(tmp_path)
    for file in names:
        (tmp_path / file).unlink()

    @ray.remote(num_cpus=0)
    class Worker:
        def look(self, model: HostModel) -> tuple[str, int, float, set[tuple[str, str]], int]:
            model.views(framework)
            before = anonymous()
            self.tensors = model.views(framework)
            total = sum(float(tensor.sum()) for name, tensor in self.tensors.items() if name != "bf")
            grown = anonymous() - before
            mapped = {
                (line.split()[3], line.split()[4])
                for line in Path("/proc/self/maps").read_text().splitlines()
                if "memfd:model" in line
            }
            node = ray.get_runtime_context().get_node_id()
            return node, len(self.tensors), total, mapped, grown

        def write(self) -> float:
            self.tensors["w0"][0, 0] = 7.0
            return float(self.tensors["w0"][0, 0])

        def first(self) -> float:
            return float(self.tensors["w0"][0, 0])

    def anonymous() -> int:
        """Bytes of this process's own memory."""
        status = Path("/proc/self/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) << 10

    placed = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    assert len(nodes) == 2
    workers = [
        Worker.options(scheduling_strategy=placed(n, soft=False)).remote() for n in nodes for _ in range(2)
    ]
    seen = ray.get([worker.look.remote(model) for worker in workers])
    expected = sum(float(tensors[f"w{n}"].sum()) for n in range(4))
    for node, count, total, mapped, grown in seen:
        assert node in nodes and count == 5 and abs(total - expected) < 1.0
        assert len(mapped) == 2
        assert grown < 8 << 20, "tensors were copied"
    files = {node: mapped for node, _, _, mapped, _ in seen}
    assert seen[0][3] == seen[1][3] and seen[2][3] == seen[3][3], "two memories on one node"
    assert not files[nodes[0]] & files[nodes[1]], "one memory for two nodes"
    # Who writes has pages of its own.
    was = ray.get(workers[1].first.remote())
    assert ray.get(workers[0].write.remote()) == 7.0
    assert ray.get(workers[1].first.remote()) == was


def test_a_model_that_is_not_there_is_told(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(tensafe.MissingFileError, match="nothing"):
        load_once_per_host(tmp_path / "nothing.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"short")
    with pytest.raises(tensafe.FormatError):
        load_once_per_host(tmp_path / "bad.safetensors")


def test_a_node_that_is_lost_costs_no_row(cluster: Cluster, second: Any, many: Path) -> None:
    # Both have a worker by now, however long Ray took to start it.
    placed = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    starts = ray.remote(num_cpus=1)(lambda: None)
    ray.get([starts.options(scheduling_strategy=placed(node, soft=False)).remote() for node in nodes])
    rows = []
    lost = None
    for row in fleet.run(Slow(), many, engine="ray", batch=8):
        rows.append(row)
        hosts = {each.host for each in rows}
        if lost is None and len(hosts) == 2:
            lost = second.node_id[:12]
            # As a machine that loses power: nothing of it is asked to end, or ends what it has in hand.
            raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
            processes = [raylet, *raylet.children(recursive=True)]
            for process in processes:
                process.suspend()
            for process in processes:
                # Workers may die with the raylet, and be gone before their turn.
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            cluster.remove_node(second, allow_graceful=False)
    assert lost is not None and len(rows) < 201
    assert {row.path for row in rows} == {str(path) for path in many.iterdir()} and len(rows) == 200
    assert {row.status for row in rows} == {"ok"}
    by_host = Counter(row.host.rpartition("/")[2] for row in rows)
    assert by_host[lost] < 100 and len(by_host) == 2
    assert max(row.attempts for row in rows) > 1, "nothing was in hand on the node that was lost"


def test_the_page(tmp_path: Path) -> None:
    run_page("ray", tmp_path, {"RAY_USAGE_STATS_ENABLED": "0"})
