"""The run of a soak: a supervised hub on a disk and a clock that obey flags, its load, and who watches it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from console.launch.restarts import HUB, Backoff
from console.launch.supervisor import Supervisor
from driftline import rundir
from driftline.config import HubConfig
from driftline.keys import add
from driftline.rundir import RunDir
from tests.faults.proxy import Proxy
from tests.faults.soak_load import Console, Follower, Load
from tests.unit.hubs import PATIENCE

ROOT = Path(__file__).parents[2]
PRODUCERS = ("trainer", "engine-0", "engine-1")


class BadHubSupervisor(Supervisor):
    """The real one, but for the disk and the clock of its hubs."""

    flags: Path

    def start(self, name: str, command: Sequence[str], *, dies_with_parent: bool = True) -> subprocess.Popen[bytes]:
        if name == "hub":
            at = command.index("driftline.hub")
            command = [*command[:at], "tests.faults.badhub", str(self.flags), *command[at + 1 :]]
            command = ["env", f"PYTHONPATH={ROOT}", *command]  # with -P it would not find the tests
        return super().start(name, command, dies_with_parent=dies_with_parent)


class World:
    """Everything of one soak. A context manager: leaving it ends all that it started, by id."""

    def __init__(self, folder: Path, rolls: random.Random, hub_backoff: Backoff = HUB, pace: float = 1.0) -> None:
        """`pace`: how long faults last, against how long they do in a soak."""
        self.run: RunDir = rundir.create(folder, "soak")
        self.rolls, self._pace = rolls, pace
        self.flags = folder / "flags"
        self.flags.mkdir()
        self.away: list[Path] = []
        self.news: list[str] = []
        self.odd_sent = 0
        self.odd_bodies: list[bytes] = []
        self._cleanup = contextlib.ExitStack()
        self.supervisor = BadHubSupervisor(self.run, hub_backoff=hub_backoff)
        self.supervisor.flags = self.flags

    def __enter__(self) -> World:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.supervisor)
            assert self.supervisor.start_hub(HubConfig(compact=True), cancelled=lambda: False)
            for key, role in (("fuzzer", "operator"), ("odd", "producer"), ("names", "producer")):
                add(self.run, key, role, key)  # type: ignore[arg-type]  # a Role
            self.proxy = Proxy(self.ports()[0], self.rolls)
            stack.callback(self.proxy.close)
            self.console = Console(self.run)
            stack.callback(self.console.close)
            self.load = Load(self.run, self.proxy)
            stack.callback(self.load.close)
            self.follower = Follower(self.run, PRODUCERS)
            stack.callback(self.follower.close)
            for thread in (self.console, self.load, self.follower):
                thread.start()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def keep(self) -> None:
        """What a run's session does all the time: the supervisor starts again what has died."""
        if news := self.supervisor.keep_hub():
            self.news.append(news)

    def until(self, condition: Callable[[], object], what: str, timeout: float = 3 * PATIENCE) -> None:
        """Wait for a condition while the supervisor goes on; fail with its name."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}"
            self.keep()
            time.sleep(0.02)

    def rest(self, seconds: float) -> None:
        """Let a fault last."""
        end = time.monotonic() + seconds * self._pace
        while time.monotonic() < end:
            self.keep()
            time.sleep(0.02)

    def hub_pid(self) -> int:
        """Process id of the newest hub."""
        return self.supervisor._children["hub"].pid

    def ports(self) -> list[int]:
        """Of the hub's endpoints."""
        there = self.run.connection()
        return [int(end.rpartition(":")[2]) for end in (there.ingest, there.live, there.rpc)]

    def aside(self) -> Path:
        """A path for files that are taken away; they are counted at the end."""
        self.away.append(self.run.path / f"away-{len(self.away)}")
        return self.away[-1]

    def healthy(self) -> bool:
        """Whether all is as wanted: every producer connected and nothing waits long, the follower at the head."""
        return (
            self.supervisor.hub_up()
            and all(probe.connected and probe.stats.queued_bytes < 2**20 for probe in self.load.probes.values())
            and not self.follower.degraded
            and self.console.alive()
        )

    @contextlib.contextmanager
    def flag(self, name: str, text: str = "") -> Iterator[None]:
        """A file that the hub's disk or clock obeys."""
        file = self.flags / name
        file.write_text(text)
        try:
            yield
        finally:
            file.unlink()

    @contextlib.contextmanager
    def child(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        """A process that is killed at the end."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()
