"""Ray's own test cluster: two raylets on this machine, as two nodes."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from tests.e2e import engine_support as support

_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray would else put this machine's outward address in the place of the loopback's.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # As our own Ray has them: engines as urgent as the trainer that waits for them, and no worker for no task.
    "RAY_worker_niceness": "0",
    "RAY_prestart_worker_first_driver": "0",
}
_SCRIPT: Final = """
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


class Nodes:
    """The cluster, and the environment of processes that join it, with a folder (short, for socket names) and token."""

    def __init__(self, folder: Path, log: Path) -> None:
        taken = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {"RAY_TMPDIR": str(folder), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = taken | own | _SETTINGS
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SCRIPT], env=self.environment, text=True, stderr=out,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        assert self.process.stdout is not None
        address = self.process.stdout.readline().strip()
        if not address:
            self.process.kill()
            raise AssertionError(log.read_text()[-4000:])
        self.environment["RAY_ADDRESS"] = address
        self._own = psutil.Process(self.process.pid).children(recursive=True)
        self.raylets = {process.pid for process in self._own if process.name() == "raylet"}

    def end(self) -> None:
        """In order; nothing of it is left."""
        self.process.communicate(timeout=support.LIMIT_S)
        assert not support.engine_left(self._own)

    def clear(self) -> None:
        """Kill what is left."""
        for process in support.engine_left(self._own):
            process.kill()
        self.process.kill()
        self.process.wait(support.LIMIT_S)


@contextmanager
def two_nodes(log: Path) -> Iterator[Nodes]:
    """Started, and ended."""
    folder = tempfile.mkdtemp(prefix="dl-ray-")
    try:
        nodes = Nodes(Path(folder), log)
        try:
            yield nodes
        finally:
            nodes.clear()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
