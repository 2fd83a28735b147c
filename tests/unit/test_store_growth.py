"""What an hour of a run adds to a console's memory: its numbers, and little beside them."""

from __future__ import annotations

import gc
import tracemalloc

import msgspec

from console.store.model import RunModel
from console.store.syncs import OPEN
from driftline.catalog.metrics import METRICS
from driftline.frames import EngineState, Frame, Metrics, Span, Stamped, encode
from tests.tui.sync_runs import spans
from tests.tui.synthetic import START
from tests.unit.test_store_syncs import index

HALF_SECONDS = 7200
"""Of an hour."""
NAMES = [metric.name for metric in METRICS[:30]]


def feed(model: RunModel, first: int, stop: int) -> None:
    """A step, and a sync of two engines, each ten seconds; a report of each engine each half second."""

    def put(time: float, producer: str, frame: Frame) -> None:
        # Through bytes, as frames come: what is decoded shares no text and no number with anything.
        sent = msgspec.msgpack.encode(Stamped(model.head + 1, time, producer, msgspec.Raw(encode(frame))))
        model.apply(msgspec.msgpack.decode(sent, type=Stamped))

    for n in range(first, stop):
        time = START + n / 2
        if n % 20 == 0:
            values = {name: n + place / 40 for place, name in enumerate(NAMES)}
            put(time, "trainer", Metrics(n // 20, n // 20, time, values))
        for engine in ("engine-0", "engine-1"):
            put(time, engine, EngineState(engine, "running", 1, time, 8, 2, n % 7 / 10, 0.1, 1e5 + n))
            if n % 20 == 0:
                put(time, engine, Span(f"sync-{n // 20}", engine, "total", time, 0.3 + n / 1e6, 1, 1, n, 10**6))


def test_an_hour_adds_its_numbers_and_little_beside_them() -> None:
    model = RunModel()
    feed(model, 0, HALF_SECONDS // 6)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        feed(model, HALF_SECONDS // 6, HALF_SECONDS // 6 + HALF_SECONDS)
        gc.collect()
        grown = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    finally:
        tracemalloc.stop()
    numbers = HALF_SECONDS / 20 * len(NAMES) * 8 / 2**20
    print(f"an hour: {grown:.2f} MiB, of which the values are {numbers:.2f}")
    # It was 1.13 while every span of every sync was an object.
    assert grown < 0.6
    assert model.syncs.count == (HALF_SECONDS // 6 + HALF_SECONDS) // 20


def test_a_sync_that_is_packed_answers_as_before_and_takes_late_spans() -> None:
    groups = [
        [
            *spans(f"sync-{n}", "engine-0", START + n, (n, n + 1), n),
            *spans(f"sync-{n}", "engine-1", START + n, (n, n + 1), n, failed="digest differs" if n == 2 else ""),
        ]
        for n in range(3 * OPEN)
    ]
    for n, group in enumerate(groups):
        alone, found = index(group).syncs[0], index(*groups).syncs[n]
        assert found.summary() == alone.summary()
        assert (found.ok, found.spans, list(found.engines)) == (alone.ok, alone.spans, list(alone.engines))
        for one, other in zip(found, alone, strict=True):
            assert list(one.phases.items()) == list(other.phases.items())
    made = index(*groups)
    old = made.syncs[2]
    assert (old.failed[0].detail, made.failures) == ("digest differs", 1)
    again = index(*groups, groups[2])
    assert again.syncs[2].spans == old.spans, "spans that come again are known, packed or not"
    for span in spans("sync-1", "engine-2", START + 1, (1, 2), 1, failed="late"):
        made.record(span)
    assert list(made.syncs[1].engines) == ["engine-0", "engine-1", "engine-2"]
    assert (made.syncs[1].summary().engines, made.syncs[1].ok, made.failures) == (3, False, 2)
    assert made.syncs[0].ok
