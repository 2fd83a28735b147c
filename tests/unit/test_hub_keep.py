"""Retention by a hub at work: old segments go, what they added up to stays, and an answer about them says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from driftline.client import Client, Feed, attach
from driftline.frames import Metrics, RunState
from driftline.journal.journal import read, segments
from driftline.keys import make_run_keys
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub, until

pytestmark = pytest.mark.timeout(120)


def test_old_segments_go_and_everybody_knows_where_the_journal_begins(tmp_path: Path) -> None:
    """Several hubs one after the other, each with a segment of its own; then one that keeps next to nothing."""
    hub = Hub(tmp_path)
    make_run_keys(hub.run)
    probe = Probe("trainer", hub.run)
    try:
        for life in range(4):
            hub.start()
            if life == 0:
                probe.send(RunState("r", "running", 1, 2, 3, 4.0))
            for step in range(50):
                probe.emit({"a": 1.0}, step=50 * life + step)
            assert probe.flush(PATIENCE)
            if life == 2:
                assert hub.stop() == 0
            else:
                hub.kill()
        assert len(segments(hub.run.journal)) == 4
        hub.options = ("--keep-gb", "1e-6")
        hub.start()
        until(lambda: len(segments(hub.run.journal)) == 1, "the old segments to go")
        assert not list(hub.run.journal.glob("00000[1-4].rli"))
        probe.emit({"a": 1.0}, step=200)
        assert probe.flush(PATIENCE), "the producer is known as before"
        connection, keys = attach(hub.run, "viewer")
        with Client(connection, keys) as client:
            page = client.page(1)
            assert (page.first, page.next, page.head) == (202, 203, 202)
            assert [f.step for s in page.frames if isinstance(f := s.frame(), Metrics)] == [200]
            assert [type(s.frame()) for s in client.snapshot().states] == [RunState], "still known, from the checkpoint"
        with Feed(connection, keys, since=1) as feed:
            assert feed.wait(PATIENCE)
            assert [s.seq for s in feed.drain()] == [202]
            assert feed.status.skipped == 201
        assert [s.seq for s in read(hub.run.journal)] == [202]
        hub.options = ("--keep-gb", "1e-9")
        for life in range(2):
            hub.kill()
            hub.start()
            until(lambda: len(segments(hub.run.journal)) == 1, "the last segment with a record to go")
            with Client(*attach(hub.run, "viewer")) as client:
                snapshot = client.snapshot()
            assert snapshot.head == 202, f"restart {life}: no number is given away twice"
            assert [type(s.frame()) for s in snapshot.states] == [RunState], f"restart {life}: still known"
        probe.emit({"a": 1.0}, step=201)
        assert probe.flush(PATIENCE)
        assert [s.seq for s in read(hub.run.journal)] == [203]
    finally:
        hub.end()
        probe.close(0.1)


def test_unless_configured_a_hub_keeps_everything(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    make_run_keys(hub.run)
    try:
        for _ in range(4):
            hub.start()
            hub.kill()
        hub.start()
        with Client(*attach(hub.run, "viewer")) as client:
            assert client.page(1).first == 1
        assert len(segments(hub.run.journal)) == 5
    finally:
        hub.end()


@pytest.mark.parametrize("option", ["--keep-gb=-1", "--keep-hours=nan"])
def test_a_limit_below_nothing_is_one_sentence(tmp_path: Path, option: str) -> None:
    command = [sys.executable, "-m", "driftline.hub", str(tmp_path / "r"), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert done.stderr == "driftline hub: --keep-gb and --keep-hours are 0 (keep everything) or more\n"
