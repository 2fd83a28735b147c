"""What came of a soak: everything that was sent is there once, on the disk and in the follower."""

from __future__ import annotations

from collections import Counter

from driftline.frames import EngineState, Event, Metrics, Span, Tokens
from driftline.journal.journal import read
from tests.faults.soak_world import PRODUCERS, World
from tests.unit.hubs import PATIENCE


def counted(world: World) -> int:
    """End the load and count: every number and every frame once, every refusal of an odd frame; returns the frames.

    Directories that were taken away are read too: what is in both was saved by the hub. Raises AssertionError.
    """
    load, follower = world.load, world.follower
    load.ending.set()
    load.join()
    assert all(probe.flush(4 * PATIENCE) for probe in load.probes.values())
    assert [probe.stats.dropped for probe in load.probes.values()] == [0, 0, 0]
    seen: set[int] = set()
    kept: Counter[tuple[str, str]] = Counter()
    steps: set[tuple[str, str, int]] = set()
    refused = 0
    for folder in (*world.away, world.run.journal):
        last = 0
        for stamped in read(folder):
            assert stamped.seq > last, f"{folder}: number {stamped.seq} after {last}"
            last = stamped.seq
            if last in seen:
                continue
            seen.add(last)
            frame = stamped.frame()
            if isinstance(frame, Event) and frame.kind == "hub.bad_frame":
                refused += frame.text.startswith("odd: ")
            if stamped.producer in PRODUCERS and isinstance(frame, Metrics | Tokens | EngineState | Span):
                kept[stamped.producer, type(frame).__name__] += 1
                if isinstance(frame, Metrics | Tokens):
                    steps.add((stamped.producer, type(frame).__name__, frame.step))
    head = max(seen)
    assert len(seen) == head, f"{head - len(seen)} numbers are missing on the disk"
    assert kept == load.sent, "lost or double on the disk"
    assert len(steps) == sum(n for (_, kind), n in load.sent.items() if kind in ("Metrics", "Tokens"))
    assert refused == world.odd_sent, f"{refused} refusals counted, {world.odd_sent} odd frames sent"
    world.until(lambda: follower.at >= head, "the follower to have everything", 4 * PATIENCE)
    assert not follower.wrong
    assert follower.count.kept == load.sent, "lost or double in the follower"
    return sum(load.sent.values())
