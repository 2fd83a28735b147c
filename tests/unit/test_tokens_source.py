"""Tokens through a real hub: the recent past, bounded, then what comes; not for a key that may not read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from console.connect import live_source
from console.connect.live_source import LiveSource
from console.connect.target import LocalRun
from console.tui.watch.watched_run import Watch
from driftline.frames import Metrics
from driftline.keys import add
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub, until
from tests.unit.runs import tokens


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    made.start()
    yield made
    made.end()


def steps(watch: Watch) -> list[int]:
    return sorted(set(watch.tokens.sequences["step"].tolist()))


def taken(watch: Watch, newest: int) -> bool:
    while watch.take_frames() or watch.take_tokens():
        pass
    return newest in steps(watch)


def test_the_past_is_delivered_and_then_what_comes(hub: Hub) -> None:
    source = LiveSource(LocalRun(hub.run), operate=False)
    watch = Watch(source)
    try:
        with Probe("trainer", hub.run) as probe:
            for step in range(1, 21):
                probe.send(Metrics(step, step, 0.0, {"reward/mean": 0.5}))
                probe.send(tokens(step))
            assert probe.flush(PATIENCE)
            until(lambda: watch.take_frames() or watch.model.step == 20, "the metrics")
            assert watch.take_tokens() == 0, "no client has asked"
            watch.ask_tokens()
            watch.ask_tokens()
            assert watch.tokens_refused == ""
            until(lambda: taken(watch, 20), "the past")
            assert steps(watch) == list(range(1, 21))
            probe.send(tokens(21))
            until(lambda: taken(watch, 21), "what comes")
            assert steps(watch) == list(range(1, 22))
            assert watch.tokens.taken == 21 * 15, "each token once"
            until(lambda: source.tokens_behind == 0, "all to be here")
            assert watch.model.damaged == 0
        source.tokens(False)
        assert source.drain_tokens(10) == []
    finally:
        watch.close()


def test_no_more_of_the_past_is_fetched_than_allowed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = tokens(1, 16, 256)
    monkeypatch.setattr(live_source, "TOKENS_BYTES", 1_000_000)
    with Probe("trainer", hub.run) as probe:
        for step in range(1, 301):
            probe.send(tokens(step, 16, 256, pieces=False))
        assert probe.flush(PATIENCE)
    source = LiveSource(LocalRun(hub.run), operate=False)
    watch = Watch(source)
    try:
        watch.ask_tokens()
        until(lambda: taken(watch, 300), "the newest")
        seen = steps(watch)
        assert seen == list(range(seen[0], 301)), "without a gap"
        assert 2 <= len(seen) <= 2 * 1_000_000 // (24 * frame.n)
    finally:
        watch.close()


def test_a_key_without_the_right_gets_a_refusal_and_sees_all_else(hub: Hub) -> None:
    key = add(hub.run, "guest", "viewer", "guest", tokens=False)
    source = LiveSource(LocalRun(hub.run, key), operate=False)
    watch = Watch(source)
    try:
        with Probe("trainer", hub.run) as probe:
            probe.send(tokens(1))
            probe.send(Metrics(1, 1, 0.0, {"reward/mean": 0.5}))
            assert probe.flush(PATIENCE)
        watch.ask_tokens()
        assert "this key may not read raw tokens" in watch.tokens_refused
        until(lambda: watch.take_frames() or watch.model.step == 1, "the metrics")
        assert watch.take_tokens() == 0
    finally:
        watch.close()
