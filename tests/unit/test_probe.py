"""The probe without a hub: what it accepts, what it counts, and what it never does to its trainer."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
import time
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.frames import (
    Ack,
    EngineState,
    Event,
    FixState,
    Frame,
    Metrics,
    RunState,
    Span,
    Tokens,
    decode,
    encode,
)
from driftline.journal.journal import read
from driftline.keys import make_run_keys
from driftline.producer.probe import Probe
from driftline.producer.ring import WINDOW_FRAMES, Ring
from driftline.rundir import RunDir
from tests.unit.hubs import PATIENCE, Hub, until


@pytest.fixture
def probe(tmp_path: Path):  # type: ignore[no-untyped-def]
    run = RunDir(tmp_path)
    make_run_keys(run)
    probe = Probe("trainer", run)
    yield probe
    probe.close(0.0)


def sent(probe: Probe) -> list[Frame]:
    """What waits in the ring of a probe that has no hub."""
    return [decode(body) for body in probe._ring.pending]


class Tensor:
    """As a zero-dimensional tensor: no float, but float() works."""

    def __float__(self) -> float:
        return 0.5


class Awkward:
    def __float__(self) -> float:
        raise RuntimeError("a tensor of more than one element")

    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_numbers_of_every_kind_arrive_as_floats(probe: Probe) -> None:
    probe.emit({"f": 1.5, "i": 2}, step=3, version=4, labels={"f": "exact"})
    kinds = {"f64": np.float64(1.5), "f32": np.float32(0.5), "i": np.int64(7), "bool": True, "zero-d": np.array(2.5)}
    odd = {"tensor": Tensor(), "nan": float("nan"), "inf": -np.inf}
    probe.emit({**kinds, **odd}, step=np.int64(5), version=np.int32(1))  # type: ignore[arg-type]
    first, second = sent(probe)
    assert isinstance(first, Metrics)
    assert isinstance(second, Metrics)
    assert (first.step, first.version, first.values, first.labels) == (3, 4, {"f": 1.5, "i": 2.0}, {"f": "exact"})
    nan = second.values.pop("nan")
    assert nan != nan
    expected = {"f64": 1.5, "f32": 0.5, "i": 7.0, "bool": 1.0, "zero-d": 2.5, "tensor": 0.5, "inf": -float("inf")}
    assert second.values == expected
    assert (second.step, second.version) == (5, 1)
    assert probe.stats.refused == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"a": 1.0, "huge": 2**70}, {"a": 1.0, "huge": 2.0**70}),
        ({"a": 1.0, 7: 2.0}, {"a": 1.0, "7": 2.0}),
        ({"a": 1.0, "half \ud83d": 2.0}, {"a": 1.0, "half ?": 2.0}),
        (MappingProxyType({"a": 1.0}), {"a": 1.0}),
        (ChainMap({"a": 1.0}, {"b": 2}), {"a": 1.0, "b": 2.0}),
        ({}, {}),
    ],
)
def test_one_odd_name_or_number_does_not_cost_the_others(
    probe: Probe, values: Mapping[str, float], expected: dict[str, float]
) -> None:
    probe.emit(values, step=1, labels={"a": 5})  # type: ignore[dict-item]
    (frame,) = sent(probe)
    assert isinstance(frame, Metrics)
    assert (frame.values, frame.labels) == (expected, {"a": "5"})
    assert probe.stats.refused == 0


def test_an_event_takes_any_text_and_a_step_of_numpy(probe: Probe) -> None:
    probe.event("error", ValueError("nothing left"), step=np.int64(3))  # type: ignore[arg-type]
    (event,) = sent(probe)
    assert isinstance(event, Event)
    assert (event.text, event.step) == ("nothing left", 3)


def test_a_forked_child_is_inert_and_says_so(probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
    """The sender stays with the parent, and may have held the ring's lock at the fork: a child must not wait for it."""
    out, into = os.pipe()
    with probe._ring._lock:
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):  # whatever happens here, no second pytest must go on
                signal.alarm(10)
                probe.emit({"a": 1.0}, step=1)
                probe.event("kind", "text")
                probe.close()
                os.write(into, f"{probe.flush(0.1)} {'inert' in caplog.text}".encode())
            os._exit(0)
    os.close(into)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(out) as said:
        assert (status, said.read()) == (0, "False True"), "signal 14: it waited"
    probe.emit({"a": 1.0}, step=1)
    assert len(sent(probe)) == 1, "the parent's goes on"


def test_unusable_values_are_counted_and_logged_once(probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "driftline.probe"):
        for _ in range(50):
            probe.emit({"good": 1.0, "bad": "text", "none": None, "worse": Awkward(), "list": [1, 2]}, step=1)
            probe.emit({"good": 1.0, "step": 2}, step="one")  # type: ignore[arg-type]
            probe.emit(None, step=1)  # type: ignore[arg-type]
            probe.emit({"good": 2.0}, step=2**80)
            probe.send("no frame at all")  # type: ignore[arg-type]
            probe.event("kind", "text", odd=Awkward())
            probe.ack("id", "applied", data={"x": Awkward()})
            probe.tokens(
                step=1, version=1, ids=[1, 2], seq=[0], position=[0], token_version=[0], rollout=[0.0], trainer=[0.0]
            )
    metrics = [f for f in sent(probe) if isinstance(f, Metrics)]
    assert [f.values for f in metrics] == [{"good": 1.0}] * 50
    assert probe.stats.refused >= 50 * 10
    assert len(caplog.records) < 20


def test_events_tokens_and_states_arrive_whole(probe: Probe) -> None:
    probe.event("sync.done", "all good", "warn", 7, seconds=0.5, engine="engine-0", path=Path("x"), n=np.int64(3))
    arrays = {k: np.arange(3) for k in ("ids", "seq", "position", "token_version", "rollout", "trainer")}
    probe.tokens(step=1, version=2, **arrays, pieces=("a", "\ud83d", "c"), rewards=np.array([0.5]))
    probe.send(RunState("r", "running", 1, 2, 3, 4.0))
    event, tokens, state = sent(probe)
    assert isinstance(event, Event)
    assert event.data == {"seconds": 0.5, "engine": "engine-0", "path": "x", "n": 3}
    assert isinstance(tokens, Tokens)
    assert tokens.n == 3
    assert tokens.pieces == ("a", "?", "c")
    assert np.frombuffer(tokens.trainer, "<f4").tolist() == [0.0, 1.0, 2.0]
    assert isinstance(state, RunState)


def test_without_a_run_the_probe_is_inert_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path))
    monkeypatch.delenv("DRIFTLINE_RUN", raising=False)
    with caplog.at_level(logging.WARNING, "driftline.probe"):
        probe = Probe()
        probe.emit({"a": 1.0}, step=1)
        probe.event("k", "t")
        probe.ack("x", "applied")
        probe.tokens(step=1, version=1, ids=[], seq=[], position=[], token_version=[], rollout=[], trainer=[])
        assert not probe.flush(0.1)
        probe.close()
    assert len(caplog.records) == 1
    assert "inert" in caplog.text
    assert probe.stats.sent == 0
    assert not probe.connected


def test_the_run_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDir(tmp_path / "r")
    run.journal.mkdir(parents=True)
    make_run_keys(run)
    monkeypatch.setenv("DRIFTLINE_RUN", str(run.path))
    with Probe() as probe:
        probe.emit({"a": 1.0}, step=1)
        assert probe.stats.queued_bytes > 0


def test_close_without_a_hub_does_not_hold_up_the_end(probe: Probe) -> None:
    probe.emit({"a": 1.0}, step=1)
    start = time.monotonic()
    probe.close(60.0)
    assert time.monotonic() - start < 30
    probe.emit({"a": 1.0}, step=2)
    probe.close()


def test_close_waits_for_a_hub_that_a_supervisor_starts_again(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that has welcomed this probe before: the last words of a run are said while its hub is away."""
    probe = Probe("trainer", hub.run)
    probe.emit({"a": 1.0}, step=1)
    assert probe.flush(PATIENCE)
    monkeypatch.setattr("driftline.producer.sender.SILENT_SECONDS", 0.5)
    hub.kill()
    until(lambda: not probe.connected, "the probe to notice")
    probe.emit({"a": 1.0}, step=2)
    with hub.run.supervisor_lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        again = threading.Timer(0.3, hub.start)
        again.start()
        probe.close(PATIENCE)
        again.join()
    steps = [frame.step for one in read(hub.run.journal) if isinstance(frame := one.frame(), Metrics)]
    assert steps == [1, 2]


def test_import_of_the_package_is_light() -> None:
    import subprocess

    code = "import sys, driftline; print({'zmq', 'numpy', 'msgspec'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


# The ring


def test_the_ring_keeps_the_newest_within_its_bound_and_counts_the_rest() -> None:
    ring = Ring(10_000)
    for number in range(1000):
        ring.add(b"%0100d" % number)
        assert ring.bytes <= 10_000
    kept = ring.pending
    assert kept == [b"%0100d" % number for number in range(1000 - len(kept), 1000)]
    assert ring.dropped == 1000 - len(kept)


def test_numbered_frames_are_never_dropped_and_leave_room() -> None:
    ring = Ring(10_000)
    for number in range(200):
        ring.add(b"%0100d" % number)
        ring.assign_numbers()
    window = ring.numbered
    assert 0 < window <= 10_000 // 4 // 100 + 1
    assert [ring.frame(n) for n in range(1, window + 1)] == [b"%0100d" % n for n in range(window)]
    for number in range(500):
        ring.add(b"%0100d" % number)
    assert ring.numbered == window
    assert ring.frame(1) == b"%0100d" % 0
    ring.ack(window)
    assert ring.frame(1) is None
    assert ring.assign_numbers() > window


def test_a_frame_larger_than_the_ring_is_dropped_not_kept() -> None:
    ring = Ring(1000)
    ring.add(b"x" * 5000)
    assert (ring.bytes, ring.dropped) == (0, 1)
    ring.add(b"y")
    assert ring.assign_numbers() == 1
    assert ring.frame(1) == b"y"


def test_the_window_is_bounded_in_frames() -> None:
    ring = Ring(1 << 30)
    for _ in range(WINDOW_FRAMES + 10):
        ring.add(b"x")
    assert ring.assign_numbers() == WINDOW_FRAMES


FRAMES: dict[str, Frame] = {
    "tokens": Tokens(1, 1, 1.0, 0, b"", b"", b"", b"", b"", b""),
    "metrics": Metrics(1, 1, 1.0, {"a": 1.0}),
    "span": Span("s", "e", "load", 1.0, 1.0, 1, 2, 3),
    "state": EngineState("engine-0", "running", 1, 1.0),
    "event": Event(1.0, "info", "k", "t"),
    "ack": Ack("id", "applied", 1.0),
}


def test_what_matters_least_goes_first_and_is_counted_by_topic() -> None:
    """Put in the order that is worst for it: the most important first, so that by age it would go first."""
    bodies = {topic: encode(frame) for topic, frame in FRAMES.items()}
    ring = Ring(sum(10 * (len(body) + 64) for body in bodies.values()))
    for topic in reversed(FRAMES):
        for _ in range(10):
            ring.add(bodies[topic])
    assert (ring.drops, ring.dropped) == ({}, 0)
    order = [encode(frame) for topic, frame in reversed(FRAMES.items()) for _ in range(10)]
    assert ring.pending == order, "what is not dropped keeps its order"
    while ring.drops.get("event", 0) < 10:
        ring.add(bodies["ack"])
        drops = ring.drops
        gone = [topic for topic in FRAMES if drops.get(topic, 0) == 10]
        assert gone == list(FRAMES)[: len(gone)], "a topic is touched once all below it are gone"
        assert set(drops) <= set(list(FRAMES)[: len(gone) + 1])
        assert sum(drops.values()) == ring.dropped
    assert "ack" not in ring.drops
    assert {body for body in ring.pending} == {bodies["ack"]}
    ring.assign_numbers()
    for _ in range(500):
        ring.add(bodies["ack"])
    assert ring.drops["ack"] > 0, "an endless flood of acks is bounded too"


def test_a_wanted_fix_state_outlives_engine_states() -> None:
    fix = encode(FixState("f", "on", 1, "operator local", 1.0, "live", ()))
    ring = Ring(2000)
    ring.add(fix)
    for _ in range(100):
        ring.add(encode(FRAMES["state"]))
        ring.add(encode(FRAMES["event"]))
    assert fix in ring.pending


@given(st.lists(st.tuples(st.sampled_from(["put", "number", "ack"]), st.integers(0, 300)), max_size=200))
def test_the_ring_counts_every_frame_exactly_once(steps: list[tuple[str, int]]) -> None:
    ring, put = Ring(4000), 0
    for what, amount in steps:
        match what:
            case "put":
                ring.add(b"x" * amount)
                put += 1
            case "number":
                ring.assign_numbers()
            case "ack":
                ring.ack(ring.acked + amount % 8)
        waiting = len(ring.pending)
        assert ring.dropped + ring.numbered + waiting == put == ring.added_count
        assert ring.taken_count == ring.dropped + ring.numbered
        assert set(ring._window) == set(range(ring.acked + 1, ring.numbered + 1))
        held = [*ring.pending, *ring._window.values()]
        assert ring.bytes == sum(len(body) + 64 for body in held)
        assert ring.bytes <= 4000


def test_the_ring_is_exact_under_threads() -> None:
    ring, count = Ring(200_000), 5000
    old = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=lambda: [ring.add(b"x" * 50) for _ in range(count)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            ring.ack(ring.assign_numbers())
        for thread in threads:
            thread.join()
        while ring.pending:
            ring.ack(ring.assign_numbers())
    finally:
        sys.setswitchinterval(old)
    assert ring.added_count == 4 * count == ring.numbered + ring.dropped
    assert ring.acked == ring.numbered
    assert ring.bytes == 0
