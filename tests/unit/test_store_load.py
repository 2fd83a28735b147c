"""A run that is loaded at once is the run that was applied frame by frame: from the journal, from Parquet, up to any
frame.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest

from console.recorded import blocks
from console.recorded.compaction import wide
from console.recorded.compaction.compact import compact
from console.store.load import load
from console.store.model import RunModel
from driftline.frames import (
    Ack,
    Command,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Lease,
    Metrics,
    RunState,
    Span,
    Stamped,
    encode,
)
from driftline.journal import journal as journal_module
from driftline.journal.journal import Journal, read, segments
from driftline.journal.records import Record, record_encoder
from driftline.rundir import RunDir, create
from tests.unit.runs import NOW, journal, tokens, whole

NAMES = ("reward", "policy/entropy", "kl_new_old", "mine", "step", "engine/tokens_per_s")


def one_by_one(run: RunDir, until: int = 2**62) -> RunModel:
    model = RunModel()
    for stamped in read(run.journal):
        if stamped.seq <= until:
            model.apply(stamped)
    return model


def inside(thing: object) -> object:
    """All that an index of the model has in it, private too, as text: NaN is not equal to itself."""
    if isinstance(thing, Mapping):
        return [(repr(key), inside(value)) for key, value in thing.items()]
    if isinstance(thing, list | tuple | deque):
        return [inside(one) for one in thing]
    if isinstance(thing, Stamped):
        return repr((thing.seq, thing.time, thing.producer, bytes(thing.body)))
    if type(thing).__module__.startswith("console.store"):
        fields = getattr(type(thing), "__slots__", None) or sorted(vars(thing))
        return [(name, inside(getattr(thing, name))) for name in fields]
    return repr(thing)


def assert_equal(found: RunModel, expected: RunModel) -> None:
    """Everything that a screen can ask of them."""
    for name in (
        "run", "engines", "fixes", "labels", "events", "commands", "marks", "head", "first_time", "last_time",
        "effects", "drops", "damaged", "step",
    ):  # fmt: skip
        # As text: NaN is not equal to itself.
        assert repr(getattr(found, name)) == repr(getattr(expected, name)), name
    for name in ("syncs", "history", "log"):
        assert inside(getattr(found, name)) == inside(getattr(expected, name)), name
    assert found.metrics.names() == expected.metrics.names()
    for name in expected.metrics.names():
        np.testing.assert_array_equal(found.metrics.steps(name), expected.metrics.steps(name), name)
        np.testing.assert_array_equal(found.metrics.values(name), expected.metrics.values(name), name)
        assert found.metrics.revision(name) == expected.metrics.revision(name), name
    assert found.metrics.clock.revision == expected.metrics.clock.revision
    for unit in ("time", "tokens"):
        ours, theirs = found.metrics.clock.ruler(unit), expected.metrics.clock.ruler(unit)
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            np.testing.assert_array_equal(ours.steps, theirs.steps)
            np.testing.assert_array_equal(ours.places, theirs.places)


def life(rng: random.Random, frames: int) -> list[Frame]:
    """A run that is unlike any other: reporters that come and go, resumptions, marks, frames between."""
    found: list[Frame] = [RunState("r", "running", 0, 9, 0, NOW)]
    kinds = [tuple(rng.sample(NAMES, rng.randrange(len(NAMES) + 1))) for _ in range(3)]
    step, usual = 0, rng.choice(kinds)
    while len(found) < frames:
        if rng.random() < 0.02:
            usual = rng.choice(kinds)
        if rng.random() < 0.01:
            step = max(0, step - rng.randrange(30))
        names = usual if rng.random() < 0.9 else rng.choice(kinds)
        step += rng.choice((0, 1, 1, 1, 1, 1, 1, 1, 1, 1000) if rng.random() < 0.3 else (1,))
        time = NOW + step if rng.random() < 0.95 else rng.choice((math.nan, math.inf, NOW - 5))
        labels = {"reward": rng.choice("ab")} if rng.random() < 0.1 else {}
        value = rng.choice((1.5, math.nan, -math.inf, step / 7, 1e6))
        found.append(Metrics(step, step // 2, time, dict.fromkeys(names, value), labels))
        ident, engine = str(len(found)), rng.choice("ef")
        extra: list[Frame] = [
            Command(ident, "mark", {"text": "here"}),
            Command(ident, "sync"),
            Ack(str(rng.randrange(len(found))), "applied", NOW),
            Event(NOW, "warn", "probe.dropped", "x", data={"producer": "p", "dropped": 3, "total": 4}),
            FixState("f", "on", 1, "o", NOW, "live", (EngineFix("e", rng.choice(("on", "off")), "live"),)),
            tokens(step, 2, 3),
            EngineState(engine, rng.choice(("running", "syncing")), step, NOW + step / 3, pid=rng.choice((1, 2))),
            Span(f"s{step // 9}", engine, rng.choice(("pause", "load", "total")), NOW + step, 0.5, 1, 2, step),
            Event(NOW, "info", "sync.done", "x", step, {"sync": f"s{step // 9}"}),
            Lease("operator a", "a@b:1", NOW, NOW + step),
            Metrics(step, 0, NOW, {"eval/score": step / 3}),
        ]
        if rng.random() < 0.15:
            found.append(rng.choice(extra))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_a_loaded_run_is_the_run_frame_by_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = random.Random(seed)
    monkeypatch.setattr(blocks, "BLOCK", rng.choice((2_000, 10_000, 1_000_000)))
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", rng.choice((20_000, 10_000_000)))
    run = create(tmp_path, "life")
    frames = life(rng, 800)
    journal(run, frames)
    loaded = load(run)
    assert (loaded.seq, loaded.time, loaded.damaged) == (len(frames), NOW + len(frames), 0)
    assert_equal(loaded.model, one_by_one(run))
    until = rng.randrange(1, len(frames))
    part = load(run, until=until)
    assert part.seq == until
    assert_equal(part.model, one_by_one(run, until))

    expected = {upto: one_by_one(run, upto) for upto in (len(frames), until)}
    monkeypatch.setattr(wide, "MAX_SHAPES", (0, 1, wide.MAX_SHAPES)[seed % 3])
    list(compact(run))
    for path in segments(run.journal)[: rng.randrange(1, 9)]:
        path.unlink()
    for upto, model in expected.items():
        assert_equal(load(run, until=upto).model, model)


def test_a_run_of_every_kind_of_frame(tmp_path: Path) -> None:
    run = create(tmp_path, "whole")
    journal(run, whole(200))
    expected = one_by_one(run)
    assert min(expected.syncs.count, len(expected.history.traces), len(expected.log.entries)) > 0
    assert_equal(load(run).model, expected)
    list(compact(run))
    for path in segments(run.journal):
        path.unlink()
    assert_equal(load(run).model, expected)
    assert load(run).seq == expected.head


def test_what_cannot_be_decoded_is_counted_and_what_is_damaged_too(tmp_path: Path) -> None:
    run = create(tmp_path, "strange")
    log = Journal(run.journal)
    bodies = [
        encode(Metrics(1, 0, NOW, {"a": 1.0})),
        msgspec.msgpack.encode(["m", "one", 2]),
        msgspec.msgpack.encode(["z", 1]),
        msgspec.msgpack.encode({"no": "frame"}),
        msgspec.msgpack.encode(["t", 1, 1, NOW, 5, *[b""] * 6]),
        *(encode(Metrics(step, 0, NOW + step, {"a\x1b[2J": step / 3}, {"a\x1b[2J": "\x1bx"})) for step in range(2, 90)),
    ]
    for seq, body in enumerate(bodies, 1):
        log.append(record_encoder.encode(Record(seq, NOW + seq, "p", msgspec.Raw(body), 1, seq)), seq, True)
    log.close()
    expected = one_by_one(run)
    assert expected.damaged == 4
    assert_equal(load(run).model, expected)
    (path,) = segments(run.journal)
    whole_bytes = bytearray(path.read_bytes())
    whole_bytes[len(whole_bytes) // 2] ^= 4
    path.write_bytes(bytes(whole_bytes))
    loaded = load(run)
    assert loaded.damaged > 0
    assert_equal(loaded.model, one_by_one(run))


def test_a_run_without_frames(tmp_path: Path) -> None:
    loaded = load(create(tmp_path, "empty"))
    assert (loaded.seq, loaded.time, loaded.damaged, loaded.model.metrics.names()) == (0, None, 0, ())


def test_a_loaded_model_goes_on(tmp_path: Path) -> None:
    run = create(tmp_path, "half")
    frames = life(random.Random(3), 300)
    journal(run, frames)
    model = load(run, until=150).model
    for stamped in read(run.journal):
        model.apply(stamped)
    assert_equal(model, one_by_one(run))


def test_loading_a_journal_needs_neither_polars_nor_a_screen(tmp_path: Path) -> None:
    run = create(tmp_path, "light")
    journal(run, whole(3))
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from console.store.load import load\nfrom driftline.rundir import RunDir\n"
        f"assert load(RunDir(Path({str(run.path)!r}))).seq > 3\n"
        "assert not {'polars', 'pyarrow', 'textual'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
