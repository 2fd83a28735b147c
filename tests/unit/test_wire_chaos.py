"""Hub killed, stopped and restarted under real producers and consoles: nothing lost or double, no client waits."""

from __future__ import annotations

import os
import random
import resource
import shutil
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from driftline.client import Client, Feed, HubSilentError, Page, RefusedError, attach
from driftline.frames import Metrics
from driftline.journal.journal import Damage, read, scan, segments
from driftline.keys import load
from driftline.producer.probe import Probe
from tests.unit.hubs import PATIENCE, Hub, numbers_key, until

pytestmark = pytest.mark.timeout(120)


def test_kills_under_load_lose_nothing_and_double_nothing(hub: Hub) -> None:
    kills, frames, rate = 6, 400, 100
    names = ("trainer", "engine-0")
    probes = {
        "trainer": Probe("trainer", hub.run),
        "engine-0": Probe("engine-0", hub.run, keys=numbers_key(hub.run)),
    }
    connection, keys = attach(hub.run, "viewer")
    feed = Feed(connection, keys)
    seen: list[int] = []

    def produce(name: str) -> None:
        for step in range(frames):
            probes[name].emit({"reward/mean": step / 7}, step=step)
            time.sleep(1 / rate)

    threads = [threading.Thread(target=produce, args=(name,)) for name in names]
    dice = random.Random(11)
    try:
        for thread in threads:
            thread.start()
        for _ in range(kills):
            time.sleep(dice.uniform(0.1, 0.6))
            hub.kill()
            time.sleep(dice.uniform(0.0, 0.3))
            hub.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert all(probe.flush(PATIENCE) for probe in probes.values())

        journal = list(read(hub.run.journal))
        steps = Counter((s.producer, f.step) for s in journal if isinstance(f := s.frame(), Metrics))
        assert steps == Counter({(name, step): 1 for name in names for step in range(frames)})
        for name in names:
            own = [f.step for s in journal if s.producer == name and isinstance(f := s.frame(), Metrics)]
            assert own == sorted(own), "a producer's frames are in its own order"
        assert [s.seq for s in journal] == list(range(1, len(journal) + 1))

        def followed() -> bool:
            seen.extend(s.seq for s in feed.drain())
            return len(seen) >= len(journal)

        until(followed, "the console to have everything")
        assert seen == list(range(1, len(journal) + 1))
        until(lambda: feed.status.epoch == kills + 1, "the console to see the last hub")
        assert feed.status.rewinds == 0
    finally:
        feed.close()
        for probe in probes.values():
            probe.close(0.1)


def test_acknowledged_is_journaled_at_the_moment_of_the_kill(hub: Hub) -> None:
    """The durability sentence itself: what the producer saw acknowledged is there after kill -9, before any restart."""
    probe = Probe("trainer", hub.run)
    try:
        dice = random.Random(5)
        for round_ in range(3):
            for step in range(dice.randrange(200, 900)):
                probe.emit({"a": float(step)}, step=round_)
            until(lambda: probe.stats.acked > 0, "a first ack")
            time.sleep(dice.uniform(0, 0.05))
            acked = probe.stats.acked
            hub.kill()
            assert sum(1 for s in read(hub.run.journal) if s.producer == "trainer") >= acked
            hub.start()
        assert probe.flush(PATIENCE)
    finally:
        probe.close(0.1)


def test_emit_does_not_wait_for_a_stopped_hub(hub: Hub) -> None:
    limit = 256 * 1024
    probe = Probe("trainer", hub.run, ring_bytes=limit)
    values = {f"m/{i}": i / 3 for i in range(30)}

    def burst(count: int) -> list[float]:
        taken = []
        for step in range(count):
            start = time.perf_counter()
            probe.emit(values, step=step)
            taken.append(time.perf_counter() - start)
        return sorted(taken)

    try:
        until(lambda: probe.connected, "the probe to connect")
        burst(200)
        assert probe.flush(PATIENCE)
        awake = burst(2000)
        probe.flush(PATIENCE)
        hub.freeze()
        asleep = burst(20_000)
        # A call that waited for the hub would wait for ever, not a few times longer.
        assert asleep[len(asleep) // 2] < 20 * awake[len(awake) // 2]
        assert asleep[-1] < 1.0
        stats = probe.stats
        assert stats.queued_bytes <= limit
        assert stats.dropped > 0
        hub.thaw()
        until(lambda: probe.connected, "the probe to be connected again")
        probe.flush(PATIENCE)
        stats = probe.stats
        assert stats.acked + stats.dropped == 200 + 2000 + 20_000, "every frame is acknowledged or counted as dropped"

        def reported() -> int:
            events = [s.frame() for s in read(hub.run.journal) if s.producer == "hub"]
            return sum(int(e.data["dropped"]) for e in events if getattr(e, "kind", "") == "probe.dropped")

        until(lambda: reported() == stats.dropped, "the hub to report every drop")
        assert sum(1 for s in read(hub.run.journal) if s.producer == "trainer") == stats.acked
    finally:
        hub.thaw()
        probe.close(0.1)


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(hub: Hub) -> None:
    """The hub's files may grow no further for a while: nothing is acknowledged, consoles show it, then all goes on."""
    probe = Probe("trainer", hub.run)
    connection, keys = attach(hub.run, "operator")
    feed = Feed(connection, keys)
    assert hub.process is not None
    try:
        with Client(connection, keys) as client:
            probe.emit({"a": 1.0}, step=0)
            assert probe.flush(PATIENCE)
            size = max(path.stat().st_size for path in hub.run.journal.iterdir())
            unlimited = resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, (size + 200, resource.RLIM_INFINITY))
            for step in range(1, 100):
                probe.emit({"a": 1.0}, step=step)
            until(lambda: feed.status.degraded, "the feed to report it")
            with pytest.raises(RefusedError, match="the journal cannot be written"):
                client.command("mark", {"text": "x" * 500})
            assert not probe.flush(0.5)
            acked = probe.stats.acked
            assert acked == sum(1 for _ in read(hub.run.journal))
            resource.prlimit(hub.process.pid, resource.RLIMIT_FSIZE, unlimited)
            assert probe.flush(PATIENCE)
            until(lambda: not feed.status.degraded, "the all-clear")
        damage = Damage()
        assert [s.frame().step for s in read(hub.run.journal, damage=damage)] == list(range(100))
        assert damage.bytes == 0
    finally:
        feed.close()
        probe.close(0.1)


def test_frames_that_a_crash_of_the_machine_took_back_are_reported(hub: Hub) -> None:
    """Only here may a number mean two frames: the disk lost what had been written but not synced."""
    probe = Probe("trainer", hub.run)
    feed = Feed(*attach(hub.run, "viewer"))
    seen: list[int] = []

    def received(count: int) -> bool:
        seen.extend(s.seq for s in feed.drain())
        return len(seen) >= count

    try:
        for step in range(50):
            probe.emit({"a": 1.0}, step=step)
        assert probe.flush(PATIENCE)
        until(lambda: received(50), "the first fifty")
        hub.kill()
        (segment,) = segments(hub.run.journal)
        with segment.open("rb") as file:
            keep = next(offset for offset, seq, _ in scan(file, Damage()) if seq == 31)
        os.truncate(segment, keep)
        hub.start()
        probe.emit({"a": 1.0}, step=50)
        assert probe.flush(PATIENCE)
        until(lambda: received(51), "the frame after the crash")
        assert seen == [*range(1, 51), 31]
        assert feed.status.rewinds == 1
        assert "has taken back 20 frames" in feed.status.error
        assert [s.frame().step for s in read(hub.run.journal)] == [*range(30), 50]
    finally:
        feed.close()
        probe.close(0.1)


def test_a_journal_put_back_from_a_copy_under_the_eyes_of_a_console(hub: Hub) -> None:
    """The copy is from before the last hub, so the next one has the same epoch and the same base as that."""
    probe = Probe("trainer", hub.run)
    feed = None
    try:
        probe.emit({"a": 1.0}, step=0)
        assert probe.flush(PATIENCE)
        assert hub.stop() == 0
        copy = hub.run.path / "copy"
        shutil.copytree(hub.run.journal, copy)
        hub.start()
        feed = Feed(*attach(hub.run, "viewer"))
        for step in range(1, 21):
            probe.emit({"a": 1.0}, step=step)
        assert probe.flush(PATIENCE)
        until(lambda: feed.status.received == feed._beat == 21, "all of them, and a beacon after")
        hub.kill()
        shutil.rmtree(hub.run.journal)
        copy.rename(hub.run.journal)
        hub.start()
        probe.emit({"a": 1.0}, step=21)
        assert probe.flush(PATIENCE)
        until(lambda: feed.status.rewinds == 1 and feed.status.received == 2, "what was taken back")
        seen = [(s.seq, s.frame().step) for s in feed.drain()]
        assert seen == [(seq, seq - 1) for seq in range(1, 22)] + [(2, 21)]
    finally:
        if feed is not None:
            feed.close()
        probe.close(0.1)


def test_a_line_too_slow_for_a_whole_page_gets_smaller_ones(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that takes longer than the patience for it would be begun again for ever."""
    whole, asked = Client.page, []

    def slow(client: Client, start: int, limit: int, *, tokens: bool, timeout: float) -> Page:
        asked.append(limit)
        if limit > 100:
            raise HubSilentError("still on its way")
        return whole(client, start, limit, tokens=tokens, timeout=timeout)

    with Probe("trainer", hub.run) as probe:
        for step in range(300):
            probe.emit({"a": 1.0}, step=step)
        assert probe.flush(PATIENCE)
        monkeypatch.setattr(Client, "page", slow)
        with Feed(*attach(hub.run, "viewer")) as feed:
            until(lambda: feed.status.received == 300, "all of it")
            assert [s.seq for s in feed.drain()] == list(range(1, 301))
            assert not feed.status.error
    assert asked[:3] == [256, 128, 64]
    assert 128 in asked[3:], "and larger ones again, once the line is quick"


def test_frames_wait_for_a_hub_that_comes_later(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    from driftline.keys import make_run_keys

    make_run_keys(hub.run)
    probe = Probe("trainer", hub.run)
    try:
        for step in range(50):
            probe.emit({"a": 1.0}, step=step)
        assert not probe.flush(0.1)
        hub.start()
        assert probe.flush(PATIENCE)
        assert [s.frame().step for s in read(hub.run.journal)] == list(range(50))
    finally:
        probe.close(0.1)
        hub.end()


def test_a_console_that_was_away_gets_every_number_once(hub: Hub) -> None:
    probe = Probe("trainer", hub.run)
    try:
        connection, keys = attach(hub.run, "viewer")
        got: list[int] = []
        for round_ in range(3):
            for step in range(700):
                probe.emit({"a": 1.0}, step=round_ * 700 + step)
            # Joins while frames are on their way, so that live and paged frames overlap.
            with Feed(connection, keys, since=len(got) + 1) as feed:
                wanted = (round_ + 1) * 700

                def all_there(feed: Feed = feed, wanted: int = wanted) -> bool:
                    got.extend(s.seq for s in feed.drain(100))
                    return len(got) >= wanted

                until(all_there, f"{wanted} frames")
        assert got == list(range(1, 2101))
    finally:
        probe.close(0.1)


def test_a_feed_finds_a_hub_that_came_back_elsewhere(hub: Hub) -> None:
    connection, keys = attach(hub.run, "viewer")
    probe = Probe("trainer", hub.run)
    feed = Feed(connection, keys, refresh=hub.run.connection)
    try:
        until(lambda: feed.status.connected, "the feed to connect")
        hub.kill()
        # The old ports are gone from the file, so the new hub takes others.
        from msgspec.structs import replace

        elsewhere = replace(connection, ingest="tcp://127.0.0.2:1", live="tcp://127.0.0.2:1", rpc="tcp://127.0.0.2:1")
        hub.run.write_connection(elsewhere)
        moved = hub.start()
        assert (moved.ingest, moved.live, moved.rpc) != (connection.ingest, connection.live, connection.rpc)
        probe.emit({"a": 1.0}, step=1)
        assert probe.flush(PATIENCE)
        assert feed.wait(PATIENCE)
        assert [s.producer for s in feed.drain()] == ["trainer"]
        assert feed.status.reconnects >= 1
    finally:
        feed.close()
        probe.close(0.1)


def test_a_restarted_hub_takes_its_old_ports_and_keys(hub: Hub) -> None:
    before, key = hub.run.connection(), load(hub.run, "server")
    hub.kill()
    after = hub.start()
    for field in ("ingest", "live", "rpc", "server"):
        assert getattr(after, field) == getattr(before, field)
    assert load(hub.run, "server") == key


def test_a_feed_says_that_the_hub_is_silent(hub: Hub) -> None:
    connection, keys = attach(hub.run, "viewer")
    feed = Feed(connection, keys)
    try:
        until(lambda: feed.status.connected, "the feed to connect")
        assert not feed.status.stale
        hub.freeze()
        until(lambda: feed.status.stale and not feed.status.connected, "the feed to call the hub stale")
        until(lambda: "silent" in feed.status.error, "a sentence about it")
        hub.thaw()
        until(lambda: feed.status.connected and not feed.status.error, "the feed to recover")
    finally:
        hub.thaw()
        feed.close()


def test_frozen_console_costs_the_others_nothing(hub: Hub) -> None:
    """A feed that no consumer drains stops reading; another follows, and the first catches up once it is drained."""
    import driftline.consumer.feed as module

    probe = Probe("trainer", hub.run)
    connection, keys = attach(hub.run, "viewer")
    small, module.QUEUE_FRAMES = module.QUEUE_FRAMES, 50
    lazy = Feed(connection, keys)
    try:
        for step in range(3000):
            probe.emit({"a": 1.0}, step=step)
        assert probe.flush(PATIENCE)
        until(lambda: len(lazy._queue) >= 50, "the lazy feed to be full")
        time.sleep(0.3)
        assert len(lazy._queue) < 50 + 512 + 256, "a full feed does not read on"
        got: list[int] = []

        def all_there() -> bool:
            got.extend(s.seq for s in lazy.drain())
            return len(got) >= 3000

        until(all_there, "the lazy feed to catch up")
        assert got == list(range(1, 3001))
    finally:
        module.QUEUE_FRAMES = small
        lazy.close()
        probe.close(0.1)
