"""Every number of a frame has a range: no frame makes a run unreadable, nor one that was let in before the ranges."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec
import pytest

from console.cli.arguments import TABLES
from console.cli.main import main
from driftline.frames import (
    MAX_INT,
    TOPIC,
    Command,
    EngineState,
    Event,
    Frame,
    FrameError,
    Lease,
    Metrics,
    RunState,
    Span,
    decode,
    encode,
)
from driftline.journal.journal import read
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create
from tests.faults.scale import FULL
from tests.unit import odd_frames
from tests.unit.hubs import PATIENCE, Hub
from tests.unit.runs import NOW, journal

pytestmark = pytest.mark.timeout(1800 if FULL else 300)
FRAMES, JOURNALS = (1000, 100) if FULL else (100, 3)
"""Odd frames of one journal, and journals."""
BATCH = 2000


@pytest.fixture(scope="module")
def sent() -> tuple[Frame, ...]:
    """Frames by hypothesis over all fields: half of them within the ranges, at their ends, half anywhere."""
    return odd_frames.drawn(FRAMES * JOURNALS)


@pytest.mark.parametrize("kind", TOPIC, ids=lambda kind: kind.__name__)
def test_every_number_of_a_frame_has_a_range(kind: type[Any]) -> None:
    """But for measured values, which may be anything: NaN is how a run diverges."""
    measured = {"Metrics.values", "Tokens.rewards", "Event.data", "Ack.data"}
    for field in msgspec.structs.fields(kind):
        if f"{kind.__name__}.{field.name}" in measured:
            continue
        inner = [field.type, *get_args(field.type)]
        assert not {int, float} & {one for one in inner if get_origin(one) is not Annotated} or (
            get_origin(field.type) is Annotated
        ), f"{kind.__name__}.{field.name} has no range"


def test_a_body_is_a_frame_within_its_ranges_or_an_error_that_names_the_field(sent: tuple[Frame, ...]) -> None:
    outside = 0
    for frame in sent:
        problem = check(frame)
        assert not problem or problem.startswith(type(frame).__name__), "it names the frame, and as a rule the field"
        outside += bool(problem)
    assert len(sent) / 4 < outside < len(sent) * 3 / 4


def check(frame: Frame) -> str:
    """What the door says of a frame; "" if it lets it in, and then its numbers are finite but for the measured ones."""
    try:
        again = decode(encode(frame))
    except FrameError as error:
        return str(error)
    for name in again.__struct_fields__:
        value = getattr(again, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert math.isfinite(value)
            assert abs(value) <= max(MAX_INT, 1e18), name
    return ""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verbs(run: RunDir, reference: RunDir, out: Path) -> list[tuple[str, ...]]:
    """Every verb that reads a recorded run without a screen."""
    path = str(run.path)
    return [
        ("list",),
        ("list", "--json"),
        ("status", "--run", path),
        ("status", "--run", path, "--json"),
        *(("export", "--run", path, "--out", str(out / f"{table}.parquet"), "--table", table) for table in TABLES),
        ("export", "--run", path, "--out", str(out / "long.csv"), "--long"),
        ("query", "SELECT * FROM metrics", "--run", path, "--format", "json"),
        ("query", "SELECT count(*) FROM events", "--run", path),
        ("compare", str(reference.path), path),
        ("compare", str(reference.path), path, "--json"),
        ("compare", path, str(reference.path)),
        ("watch", path, "--once", "--exit-code"),
        ("watch", path, "--once", "--json"),
        ("fix", "list", "--run", path, "--json"),
        ("doctor", path),
        ("compact", "--run", path),
        ("compact", "--run", path, "--check"),
    ]


def plain() -> list[Frame]:
    return [Metrics(step, step, NOW + step, {"reward/mean": 0.5, "policy/entropy": 1.0}) for step in range(60)]


def read_by_every_verb(run: RunDir, reference: RunDir, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir()
    for verb in verbs(run, reference, out):
        code = main(verb)
        said = capsys.readouterr()
        assert code in {0, 1, 2, 3, 5, 6, 7}, (verb, code)
        assert "Traceback" not in said.err + said.out, (verb, said.err)
        if verb[0] not in {"doctor", "watch", "compare", "compact"}:
            assert code in {0, 3}, (verb, said.err)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_verb_falls_over_a_journal_of_before_the_ranges(
    home: Path, capsys: pytest.CaptureFixture[str], sent: tuple[Frame, ...]
) -> None:
    reference = create(home / "runs", "plain")
    journal(reference, plain())
    for first in range(0, len(sent), FRAMES):
        run = create(home / "runs", "odd")
        odd, half = sent[first : first + FRAMES], first + FRAMES // 2
        journal(run, [*plain()[:30], *odd[: half - first], *plain()[30:], *odd[half - first :]])
        read_by_every_verb(run, reference, home / f"out-{first}", capsys)
        shutil.rmtree(run.path)  # `list` would read it each time


@pytest.mark.slow
def test_the_hub_refuses_every_frame_outside_its_ranges_and_no_other(
    hub: Hub, home: Path, capsys: pytest.CaptureFixture[str], sent: tuple[Frame, ...]
) -> None:
    """By a producer that checks nothing. What is left is a run that every verb reads."""
    # No key covers these, whatever is in them: the hub makes no record of them (tests/unit/test_key_coverage.py).
    sent = tuple(frame for frame in sent if not isinstance(frame, Command | Lease))
    with Probe("trainer", hub.run) as probe:
        for first in range(0, len(sent), BATCH):
            for frame in sent[first : first + BATCH]:
                probe._ring.add(encode(frame))
            assert probe.flush(PATIENCE)
    assert hub.stop() == 0
    kept = [stamped for stamped in read(hub.run.journal) if stamped.producer == "trainer"]
    assert len(kept) == len(sent), "each has one record"
    outside = refused = 0
    for frame, stamped in zip(sent, kept, strict=True):
        if isinstance(frame, EngineState) and isinstance(kept_state := stamped.frame(), EngineState):
            frame = msgspec.structs.replace(frame, key=kept_state.key)  # the hub writes whose key it came with
        if bytes(stamped.body) == encode(frame):
            assert odd_frames.in_range(frame), frame
            continue
        event = stamped.frame()
        assert isinstance(event, Event)
        assert event.kind == "hub.bad_frame"
        ranged = f"{type(frame).__name__}." in event.text
        # What this key may not send, or was not asked for, is refused too, for another reason.
        assert ranged or odd_frames.in_range(frame), (event.text, frame)
        outside, refused = outside + (not odd_frames.in_range(frame)), refused + ranged
    assert refused == outside == sum(not odd_frames.in_range(frame) for frame in sent)
    with capsys.disabled():
        print(f"odd frames: {len(sent)} sent, {outside} outside their ranges, {refused} refused with the field's name")
    reference = create(home / "runs", "plain")
    journal(reference, plain())
    read_by_every_verb(hub.run, reference, home / "out", capsys)


def test_the_hub_counts_what_it_refuses_and_says_which_field(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    """A producer that checks nothing: what is outside its range is journaled as an event of the hub's."""
    bad = [
        Metrics(2**63, 1, NOW, {"reward/mean": 1.0}),
        Metrics(1, 1, math.nan, {"reward/mean": 1.0}),
        EngineState("engine-0", "running", 1, math.inf),
        RunState("r", "running", 1, -5, 1, NOW),
        Event(NOW, "info", "x", "y", data={"a": 2**64 - 1}),
    ]
    with Probe("trainer", hub.run) as probe:
        for frame in bad:
            probe._ring.add(encode(frame))
        probe.emit({"reward/mean": 0.5}, step=1)
        assert probe.flush(PATIENCE)
    found = [stamped.frame() for stamped in read(hub.run.journal)]
    refused = [frame for frame in found if isinstance(frame, Event) and frame.kind == "hub.bad_frame"]
    assert len(refused) == len(bad)
    fields = ["Metrics.step", "Metrics.time", "EngineState.time", "RunState.steps", "Event.data"]
    assert [field for field, event in zip(fields, refused, strict=True) if field not in event.text] == []
    assert [frame.step for frame in found if isinstance(frame, Metrics)] == [1]


def test_a_probe_refuses_once_aloud_and_corrects_what_is_harmless(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    before = time.time()
    with caplog.at_level(logging.WARNING), Probe("trainer", hub.run) as probe:
        for _ in range(3):
            probe.emit({"reward/mean": 1.0}, step=2**63)
            probe.emit({"reward/mean": 1.0}, step=1, version=-2)
            probe.send(EngineState("engine-0", "running", 1, NOW * 1e9))
            probe.send(Span("s", "engine-0", "pause", math.nan, -0.5, 1, 2, 3))
        probe.emit({"reward/mean": math.nan}, step=7)
        assert probe.flush(PATIENCE)
        assert (probe.stats.refused, probe.stats.corrected) == (6, 6)
    found = [stamped.frame() for stamped in read(hub.run.journal)]
    assert [frame.step for frame in found if isinstance(frame, Metrics)] == [7]
    states = [frame for frame in found if isinstance(frame, EngineState)]
    spans = [frame for frame in found if isinstance(frame, Span)]
    assert (len(states), len(spans)) == (3, 3)
    assert all(before <= when <= time.time() for when in [*(s.time for s in states), *(s.start for s in spans)])
    assert {span.seconds for span in spans} == {0.0}
    warned = [record.message for record in caplog.records if record.name == "driftline.probe"]
    assert len(warned) == 3, warned
    assert any("Metrics.step" in text for text in warned)
