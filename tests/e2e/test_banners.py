"""Every trouble by its real cause, in the real console on a terminal and in the headless verbs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftline.frames import Metrics, RunState
from driftline.keys import add, revoke
from driftline.producer.probe import Probe
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import PATIENCE, Hub, numbers_key, until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def trainer(hub: Hub) -> Iterator[Probe]:
    probe = Probe("trainer", hub.run)
    probe.send(RunState(hub.run.id, "running", 1, 90, 1, time.time()))
    probe.emit({"reward/mean": 0.5}, step=1)
    assert probe.flush(PATIENCE)
    yield probe
    probe.close(0.1)


@pytest.fixture
def console(hub: Hub, trainer: Probe) -> Iterator[Terminal]:
    command = [sys.executable, "-m", "console.cli", "attach", str(hub.run.path), "--operate"]
    terminal = Terminal(command, environment(hub.run.path.parent), (100, 24))
    try:
        terminal.expect("step 1/90", "LIVE")
        yield terminal
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert b"Traceback" not in terminal.raw
    finally:
        terminal.close()


def status(hub: Hub, *options: str) -> dict[str, object]:
    command = [sys.executable, "-m", "console.cli", "status", "--run", str(hub.run.path), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_f10_a_hub_that_hangs_is_stale_within_seconds_and_then_lost(hub: Hub, console: Terminal) -> None:
    """Within 3 s on an idle machine (printed); the limit here leaves room for a busy one."""
    frozen = time.monotonic()
    hub.freeze()
    try:
        console.expect("HUB STALE")
        stale = time.monotonic() - frozen
        print(f"f10: STALE on screen {stale:.2f} s after SIGSTOP")
        console.press(b"P")
        console.expect("refused: the feed is")
        assert 2.0 < stale < 6.0
        console.expect("HUB LOST")
        assert time.monotonic() - frozen > 14
    finally:
        hub.thaw()
    start = len(console.raw)
    console.expect("LIVE")
    console.expect_bytes(b"clip fraction", start)


def test_a_hub_that_is_killed_is_lost_at_once_and_found_again(hub: Hub, console: Terminal, trainer: Probe) -> None:
    hub.kill()
    console.expect("HUB LOST", "its process has ended")
    hub.start()
    trainer.emit({"reward/mean": 0.6}, step=2)
    trainer.send(RunState(hub.run.id, "running", 2, 90, 1, time.time()))
    console.expect("step 2/90", "LIVE")


def test_a_full_disk_is_named_and_forgotten(hub: Hub, console: Terminal, trainer: Probe) -> None:
    """The hub's files may not grow any more: to it the disk is full."""
    assert hub.process is not None
    before = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE)
    size = max(path.stat().st_size for path in hub.run.journal.iterdir())
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (size, before[1]))
    step = 2
    deadline = time.monotonic() + PATIENCE
    while "DISK FULL" not in console.text() and time.monotonic() < deadline:
        trainer.emit({"reward/mean": 0.5}, step=step)
        step += 1
        console._read(0.1)
    console.expect("DISK FULL", "producers hold frames")
    document = status(hub)
    assert isinstance(document["trouble"], dict)
    assert document["trouble"]["word"] == "DISK FULL"
    resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, before)
    assert trainer.flush(PATIENCE)
    trainer.send(RunState(hub.run.id, "running", step, 90, 1, time.time()))
    console.expect(f"step {step}/90")
    until(lambda: status(hub)["trouble"] is None, "the word to go")


def test_drops_of_a_producer_are_shown(hub: Hub, console: Terminal) -> None:
    hub.freeze()
    probe = Probe("engine-0", hub.run, keys=numbers_key(hub.run), ring_bytes=64 * 1024)
    try:
        for step in range(2000):
            probe.send(Metrics(step, 1, time.time(), {f"engine/number_{i}": 1.0 for i in range(10)}))
        assert probe.stats.dropped > 0
    finally:
        hub.thaw()
    console.expect("DROPS", "engine-0 dropped")
    probe.close(PATIENCE)


def test_a_revoked_key_is_reported_on_the_screen(hub: Hub, trainer: Probe, tmp_path: Path) -> None:
    key = add(hub.run, "bob", "viewer", "bob")
    brought = tmp_path / "bob.key"
    brought.write_bytes(key.read_bytes())
    command = [sys.executable, "-m", "console.cli", "attach", "--connection", str(hub.run.connection_file)]
    terminal = Terminal([*command, "--key", str(brought)], environment(tmp_path), (100, 24))
    try:
        terminal.expect("step 1/90", "LIVE", "RO")
        revoke(hub.run, "bob")
        terminal.expect("KEY REFUSED", "was revoked")
        terminal.press(b"q")
        assert terminal.wait() == 0
    finally:
        terminal.close()


def test_tail_says_the_same_words(hub: Hub, trainer: Probe) -> None:
    command = [sys.executable, "-m", "console.cli", "tail", "--run", str(hub.run.path)]
    terminal = Terminal(command, environment(hub.run.path.parent))
    try:
        terminal.expect("reward")
        hub.freeze()
        try:
            terminal.expect("!! HUB STALE: silent for")
        finally:
            hub.thaw()
        terminal.expect("connected again, no frame was missed")
        assert b"\x1b" not in terminal.raw
    finally:
        terminal.close()
