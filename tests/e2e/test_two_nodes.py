"""The same pool on a Ray cluster of two nodes: Ray's own test cluster, two raylets on this machine."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.e2e import engine_support as support

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray would else put this machine's outward address in the place of the loopback's."""

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

POOL = """
import json, sys
from pathlib import Path
from engine.weights.publish import digest
from tests.e2e import engine_support as support

folder = Path(sys.argv[1])
model = support.engine_model(folder / "model")
pool = support.engine_pool(folder / "model", folder / "logs", [], count=2)
pool.start()
try:
    moved = support.engine_moved(model, head_only=True)
    reports = pool.sync(moved.state_dict(), 3)
    groups = support.engine_rollouts(pool, 8)
    result = {
        "nodes": {info.engine: info.node_id for info in pool.infos},
        "pids": [info.pid for info in pool.infos],
        "synced": [[r.engine, r.ok, r.version_after, r.digest == digest(moved.state_dict())] for r in reports],
        "served": sorted({group.engine for group in groups}),
        "versions": sorted({int(v) for group in groups for s in group.sequences for v in s.versions}),
        "gap": float(support.engine_gap(moved, groups).mean()),
    }
finally:
    pool.close()
print(json.dumps(result))
"""


@pytest.fixture
def ray_environment() -> Iterator[dict[str, str]]:
    """For processes that share one Ray and no other: its own folder (short, for socket names) and its own token."""
    folder = tempfile.mkdtemp(prefix="dl-ray-")
    taken = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        yield taken | own | {"RAY_USAGE_STATS_ENABLED": "0", **LOOPBACK}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_engines_on_two_nodes_are_one_pool(ray_environment: dict[str, str], tmp_path: Path) -> None:
    outside = set(psutil.Process().children(recursive=True))
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], env=ray_environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=(tmp_path / "cluster.log").open("w"),
    )  # fmt: skip
    ours: set[psutil.Process] = set()
    try:
        assert cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        assert address, (tmp_path / "cluster.log").read_text()[-4000:]
        ours = set(psutil.Process().children(recursive=True)) - outside
        done = subprocess.run(
            [sys.executable, "-c", POOL, str(tmp_path)], env=ray_environment | {"RAY_ADDRESS": address}, text=True,
            capture_output=True, timeout=4 * support.LIMIT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        result = json.loads(done.stdout.splitlines()[-1])
        assert list(result["nodes"]) == ["engine-0", "engine-1"]
        assert len(set(result["nodes"].values())) == 2
        assert result["synced"] == [["engine-0", True, 3, True], ["engine-1", True, 3, True]]
        assert result["served"] == ["engine-0", "engine-1"]
        assert result["versions"] == [3]
        assert result["gap"] < support.CLOSE
        # The pool has left the cluster, and ended what it had put there.
        assert cluster.poll() is None
        assert not [pid for pid in result["pids"] if psutil.pid_exists(pid)]
        cluster.communicate(timeout=support.LIMIT_S)
        assert not support.engine_left(ours)
    finally:
        for process in ours:
            if process.is_running():
                process.kill()
        cluster.kill()
        cluster.wait(support.LIMIT_S)
