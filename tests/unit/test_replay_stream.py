"""A recorded run's frames, byte for byte, from the journal and from what compaction made of it."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import driftline.journal.journal as journal_module
from console.recorded.compaction import encode as columns
from console.recorded.compaction import wide
from console.recorded.compaction.compact import compact
from console.recorded.frames import compacted, frames
from driftline import rundir
from driftline.frames import Event, Frame, Metrics, Stamped, Tokens, encode
from driftline.journal.journal import Journal, Record, read, record_encoder, segments
from driftline.rundir import RunDir
from tests.unit.test_compact import frames as every_kind


def write(run: RunDir, bodies: list[bytes]) -> None:
    journal = Journal(run.journal)
    for body in bodies:
        seq = journal.head + 1
        record = Record(seq, seq / 3, "trainer", msgspec.Raw(body), 7, seq)
        journal.append(record_encoder.encode(record), seq, True)
    journal.close()


def key(stamped: Stamped) -> tuple[int, float, str, bytes]:
    return stamped.seq, stamped.time, stamped.producer, bytes(stamped.body)


def odd() -> list[bytes]:
    """What a table cannot hold as it was sent."""
    blob = np.arange(4, dtype="<i4").tobytes()
    gap = np.array([0, 0, 2, 2], "<i4").tobytes()
    return [
        encode(Metrics(1, 1, 1.0, {"a": 1.0, "b": 2.0}, {"b": "x", "a": "y"})),
        encode(Event(1.0, "info", "kind", "\x1b[31mred", 1, {"s": "NaN", "i": 1, "f": 1.0})),
        encode(Tokens(1, 1, 1.0, 4, blob, gap, blob, blob, blob, blob, ("e", "e", "e"))),
        msgspec.msgpack.encode(["m", 1, 1, 1, {"whole": 3}]),  # another encoder's: integers where ours has floats
        msgspec.msgpack.encode(["?", "newer"]),
    ]


@pytest.fixture(params=[0, 1, wide.MAX_SHAPES], autouse=True)
def shapes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of numbers a row for each number, a row for each frame, and some so and some so."""
    monkeypatch.setattr(wide, "MAX_SHAPES", request.param)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 6_000)
    made = rundir.create(tmp_path, "replayed")
    write(made, [*odd(), *(encode(frame) for step in range(60) for frame in every_kind(step)), *odd()])
    assert len(segments(made.journal)) > 4
    return made


def test_the_compacted_frames_are_those_of_the_journal_byte_for_byte(run: RunDir) -> None:
    expected = [key(stamped) for stamped in read(run.journal)]
    list(compact(run))
    assert [key(s) for path in segments(run.journal) for s in compacted(run, int(path.stem))] == expected
    paths = segments(run.journal)
    for path in paths[: len(paths) // 2]:  # as retention does: the oldest first
        path.unlink()
    assert [key(s) for s in frames(run)] == expected


def test_a_stream_begins_anywhere(run: RunDir) -> None:
    expected = [key(stamped) for stamped in read(run.journal)]
    list(compact(run))
    segments(run.journal)[0].unlink()
    segments(run.journal)[0].unlink()
    dice = random.Random(20261123)
    for start in (1, 2, len(expected), len(expected) + 1, *(dice.randrange(len(expected)) for _ in range(20))):
        assert [key(s) for s in frames(run, start)] == [one for one in expected if one[0] >= start], start


def test_most_frames_have_a_table_and_are_not_kept_whole(run: RunDir) -> None:
    kept = [0, 0]
    for batch in columns.batches(read(run.journal)):
        kept[batch.table == "rest"] += len(set(batch.columns["seq"]))
    assert kept[0] > kept[1]


_texts = st.text(max_size=5)
_numbers = st.floats(allow_nan=True) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | _texts


@settings(deadline=None)  # a run directory on the disk each time
@given(
    st.lists(
        st.builds(
            Metrics, st.integers(-(2**63), 2**63 - 1), st.just(1), st.floats(), st.dictionaries(_texts, st.floats()),
            st.dictionaries(_texts, _texts),
        )
        | st.builds(Event, st.floats(), st.just("info"), _texts, _texts, st.just(1), st.dictionaries(_texts, _numbers)),
        max_size=6,
    )
)  # fmt: skip
def test_whatever_goes_to_a_table_comes_back(tmp_path_factory: pytest.TempPathFactory, sent: list[Frame]) -> None:
    made = rundir.create(tmp_path_factory.mktemp("any"), "any")
    write(made, [encode(frame) for frame in sent])
    expected = [key(stamped) for stamped in read(made.journal)]
    list(compact(made))
    found = [key(s) for path in segments(made.journal) for s in compacted(made, int(path.stem))]
    assert found == expected


def test_names_that_are_too_many_for_columns_have_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "MAX_SHAPES", 16)
    monkeypatch.setattr(wide, "MAX_COLUMNS", 3)
    made = rundir.create(tmp_path, "names")
    sent = [Metrics(step, 1, 1.0, {"a": 1.0, f"n{step % 5}": -0.0}, {"a": str(step % 2)}) for step in range(50)]
    write(made, [encode(frame) for frame in sent])
    expected = [key(stamped) for stamped in read(made.journal)]
    (note,) = compact(made)
    assert note.rows == {"reports": 20, "metrics": 2 * 30}
    assert [key(s) for s in compacted(made, note.segment)] == expected
    segments(made.journal)[0].unlink()
    assert [key(s) for s in frames(made, 31)] == expected[30:]
