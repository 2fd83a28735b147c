"""Closed segments as Parquet: row for row what the journal has, nothing damaged believed, nothing half written."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import driftline.journal.journal as journal_module
from console.cli.main import main
from console.formatting import to_json
from console.launch.restarts import Backoff
from console.launch.supervisor import Supervisor
from console.process import tree
from console.recorded.compaction import encode as columns
from console.recorded.compaction import temporary, wide
from console.recorded.compaction.compact import CompactError, check, compact
from driftline import rundir
from driftline.config import HubConfig
from driftline.frames import (
    Ack,
    EngineFix,
    EngineState,
    Event,
    FixState,
    Frame,
    Metrics,
    Span,
    Stamped,
    Tokens,
    encode,
    floats,
    ints,
)
from driftline.hub.retention import RetentionPolicy
from driftline.journal.journal import Journal, Record, read, record_encoder, segments
from driftline.journal.records import first_seq
from driftline.producer.probe import Probe
from driftline.rundir import RunDir
from tests.unit.hubs import PATIENCE, Hub, until


def some(n: int, step: int) -> Tokens:
    blob = np.arange(n, dtype="<i4")
    seq = (blob % 3).astype("<i4").tobytes()
    numbers = np.linspace(-3, 0, n, dtype="<f4").tobytes()
    pieces = tuple(f"p{i}" for i in range(n)) if step % 2 else ()
    return Tokens(
        step, 2, 3.5, n, blob.tobytes(), seq, blob.tobytes(), blob.tobytes(), numbers, numbers,
        ("engine-0", "engine-1"), ("a", "b", "c"), (0.5, 1.0, math.nan), pieces,
    )  # fmt: skip


def frames(step: int) -> list[Frame]:
    fix = EngineFix("engine-0", "on", "live", 3, 4, "d")
    return [
        Metrics(step, 2, 3.0, {"policy/kl": 0.1 * step, "x": math.nan, "y": -math.inf}, {"x": "exact", "z": "alone"}),
        Metrics(step, 2, 3.0, {}),
        some(step % 7, step),
        Event(1.0, "warn", "kind", f"text {step} é", step, {"a": 1, "b": "x", "c": math.nan, "d": True}),
        Span("s1", "engine-0", "load", 1.0, 0.5, 1, 2, step, 100, 3, False, "detail", 7, "digest"),
        FixState("fp32-lm-head", "on", step, "operator", 1.0, "next_sync", (fix, fix), "x"),
        FixState("fp32-lm-head", "on", step, "operator", 1.0, "next_sync", ()),
        EngineState("engine-0", "running", 1, 1.0),
        Ack("ab", "applied", 1.0, "done", {"a": 1}),
        Metrics(2**63 + step, 1, 1.0, {"too": 1.0}),
    ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 6_000)
    made = rundir.create(tmp_path, "compact")
    journal = Journal(made.journal)
    for step in range(40):
        for frame in frames(step):
            seq = journal.head + 1
            body = msgspec.Raw(encode(frame))
            journal.append(record_encoder.encode(Record(seq, seq / 3, "trainer", body, 7, seq)), seq, True)
    body = msgspec.Raw(msgspec.msgpack.encode(["?", 1, 2]))
    journal.append(record_encoder.encode(Record(journal.head + 1, 1.0, "newer", body, 7, 1)), journal.head + 1, True)
    journal.close()
    assert len(segments(made.journal)) > 3
    return made


def table(run: RunDir, name: str) -> list[dict[str, object]]:
    return pl.read_parquet(run.parquet / name / "*.parquet").to_dicts()


def journal_of(run: RunDir, seq: int) -> Path | None:
    """The segment that a number is in."""
    return next((path for path in reversed(segments(run.journal)) if first_seq(path) <= seq), None)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other and type(one) is type(other)


@pytest.mark.parametrize("shapes", [0, wide.MAX_SHAPES])
def test_the_tables_are_the_journal_row_for_row(run: RunDir, monkeypatch: pytest.MonkeyPatch, shapes: int) -> None:
    """Against rows made here from the journal, one frame at a time, without the code under test."""
    monkeypatch.setattr(wide, "MAX_SHAPES", shapes)
    notes = list(compact(run))
    assert [note.segment for note in notes] == [int(path.stem) for path in segments(run.journal)]
    expected: dict[str, list[dict[str, object]]] = {name: [] for name in columns.COLUMNS}
    before = 0
    for stamped in read(run.journal):
        place = {"seq": stamped.seq, "hub_time": stamped.time, "producer": stamped.producer}
        try:
            frame = stamped.frame()
        except ValueError:
            frame = None
        if isinstance(frame, Metrics) and frame.values and frame.step < 2**63:
            names = [*frame.values, *sorted(set(frame.labels) - set(frame.values))]
            head = {"step": frame.step, "version": frame.version, "time": frame.time}
            if shapes:
                numbers = {wide.VALUE + n: value for n, value in frame.values.items()}
                layout = json.dumps({"names": list(frame.values), "labels": frame.labels}, separators=(",", ":"))
                first = journal_of(run, stamped.seq) != journal_of(run, before)
                shape = {"shape": 0, "layout": layout if first else None}
                expected["reports"].append(place | head | shape | numbers)
                before = stamped.seq
                continue
            expected["metrics"] += [
                place | head | {"name": n, "value": frame.values.get(n), "label": frame.labels.get(n)} for n in names
            ]
        elif isinstance(frame, Event):
            row = {n: getattr(frame, n) for n in frame.__struct_fields__}
            expected["events"].append(place | row | {"data": to_json(frame.data)})
        elif isinstance(frame, Span):
            expected["spans"].append(place | {n: getattr(frame, n) for n in frame.__struct_fields__})
        elif isinstance(frame, FixState):
            for one in frame.engines or [None]:
                row = {n: getattr(frame, n) for n in frame.__struct_fields__ if n != "engines"}
                names = ("engine", "effective", "how", "since_version", "since_step", "detail")
                mine = {n: getattr(one, n) if one else None for n in names}
                mine["engine_how"], mine["engine_detail"] = mine.pop("how"), mine.pop("detail")
                expected["fixes"].append(place | row | mine)
        elif isinstance(frame, Tokens) and frame.n > 2:  # with fewer it tells of sequences that have no token
            for i in range(frame.n):
                at = int(ints(frame.seq)[i])
                expected["tokens"].append(
                    place
                    | {"step": frame.step, "version": frame.version, "time": frame.time}
                    | {"id": int(ints(frame.ids)[i]), "sequence": at, "position": int(ints(frame.position)[i])}
                    | {"token_version": int(ints(frame.token_version)[i])}
                    | {"rollout": float(floats(frame.rollout)[i]), "trainer": float(floats(frame.trainer)[i])}
                    | {"engine": frame.engines[at] if at < 2 else None, "prompt": frame.prompts[at]}
                    | {"reward": frame.rewards[at], "piece": frame.pieces[i] if frame.pieces else None}
                )
        else:
            letter = journal_module.kind(stamped.body).decode()
            expected["rest"].append(place | {"kind": letter, "body": bytes(stamped.body)})
    for name, rows in expected.items():
        if name == ("reports" if shapes == 0 else "metrics"):
            assert not rows
            assert not (run.parquet / name).exists()
            continue
        got = table(run, name)
        assert len(got) == len(rows) > 0, name
        for one, other in zip(got, rows, strict=True):
            assert one.keys() == other.keys(), name
            assert all(same(one[key], other[key]) for key in one), (name, one, other)
    assert {name: sum(note.rows.get(name, 0) for note in notes) for name in expected} == {
        name: len(rows) for name, rows in expected.items()
    }
    assert sum(note.parquet_bytes for note in notes) > 0
    assert list(compact(run)) == [], "once"
    assert check(run) == []


def test_every_flipped_bit_is_found(run: RunDir) -> None:
    """By the check always; and where a page is hit, by every reader with checksums: never a wrong value."""
    list(compact(run))
    dice = random.Random(4)
    files = sorted(run.parquet.rglob("*.parquet"))
    refused = wrong = 0
    for _ in range(150):
        path = dice.choice(files)
        whole = path.read_bytes()
        good = pq.read_table(path, page_checksum_verification=True)
        broken = bytearray(whole)
        bit = dice.randrange(len(whole) * 8)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        assert any(str(path) in sentence for sentence in check_one(run, path)), "found"
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                left = file.read()
            pages_equal = left.equals(good) or repr(left.to_pylist()) == repr(good.to_pylist())
            wrong += not pages_equal
        except Exception:  # noqa: BLE001  a broken file may raise anything of Arrow's, and OSError
            refused += 1
        path.write_bytes(whole)
    print(f"150 flips: {refused} refused by page checksums, {wrong} read otherwise")
    assert refused > 75
    assert check(run) == []


def check_one(run: RunDir, path: Path) -> list[str]:
    """`check`, told apart from the other files by leaving only this one's note."""
    others = [note for note in run.parquet.glob("*.json") if note.stem != path.stem]
    for note in others:
        note.rename(note.with_suffix(".aside"))
    try:
        return check(run)
    finally:
        for note in others:
            note.with_suffix(".aside").rename(note)


def test_nothing_half_written_counts(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any failure there is no note for the segment, nothing under a table's name that is not whole; and it heals."""
    import console.recorded.compaction.compact as module

    real, calls = os.fsync, 0

    def failing(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", failing)
        with pytest.raises(CompactError, match="not compacted: No space left"):
            list(compact(run))
    assert not list(run.parquet.glob("*.json"))
    assert not [path for path in run.parquet.rglob(".*") if path.is_file()], "no litter"
    assert len(list(compact(run))) == len(segments(run.journal))
    assert check(run) == []


def test_what_a_killed_compaction_left_is_removed_by_the_next_one(run: RunDir) -> None:
    """Killed while it writes; what another one writes meanwhile stays."""
    code = (
        "import os, sys; from pathlib import Path; from console.recorded.compaction.compact import compact; "
        "from driftline.rundir import RunDir; os.rename = lambda *_: os.kill(os.getpid(), 9); "
        "list(compact(RunDir(Path(sys.argv[1]))))"
    )

    def litter() -> list[Path]:
        return [path for path in run.parquet.rglob(".*") if path.is_file()]

    killed = subprocess.run([sys.executable, "-c", code, str(run.path)], timeout=PATIENCE)
    assert killed.returncode == -9
    assert litter(), "it was killed while it wrote"
    mine, file = temporary.create(run.parquet / "reports" / "000099.parquet")
    with file:
        assert len(list(compact(run))) == len(segments(run.journal))
        assert litter() == [mine]
    assert check(run) == []
    assert temporary.remove_leftovers(run.parquet) == [mine]


def test_a_run_directory_that_is_away_meanwhile_is_not_made_anew(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator who renamed it could not put it back."""
    import console.recorded.compaction.compact as module

    away = run.path.with_name("away")
    real = module.read_segment

    def renamed(*arguments: Any) -> Iterator[Stamped]:
        frames = list(real(*arguments))
        run.path.rename(away)
        yield from frames

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_segment", renamed)
        with pytest.raises(CompactError, match="not compacted: No such file"):
            list(compact(run))
    assert not run.path.exists()
    away.rename(run.path)
    assert len(list(compact(run))) == len(segments(run.journal))


def test_a_live_runs_open_segment_is_left_alone_and_retention_waits(hub: Hub) -> None:
    assert list(compact(hub.run)) == []
    hub.kill()
    hub.start()
    assert [note.segment for note in compact(hub.run)] == [1]
    keep = RetentionPolicy(hours=1e-9, compacted=True)
    assert hub.stop() == 0
    journal = Journal(hub.run.journal)
    try:
        gone = keep.expired(journal, hub.run, wall=4e9)
        assert [path.stem for path in gone] == ["000001"], "only what is compacted"
    finally:
        journal.close()


def test_a_run_that_says_so_is_compacted_by_its_end(tmp_path: Path) -> None:
    made = rundir.create(tmp_path, "run")
    with Supervisor(made) as supervisor:
        assert supervisor.start_hub(HubConfig(compact=True, keep_gb=1e-6), cancelled=lambda: False)
        with Probe("trainer", made) as probe:
            probe.emit({"a": 1.0}, step=1)
            assert probe.flush(PATIENCE)
        assert supervisor.poll("compact") is None, "it is there, beside the hub"
        assert tree.adopts_orphans()
    assert not tree.adopts_orphans(), "or what others leave behind would be zombies of this process for ever"
    assert table(made, "reports")[0]["value/a"] == 1.0
    assert check(made) == []
    assert [note.stem for note in made.parquet.glob("*.json")] == ["000001"]


def test_a_compaction_that_dies_is_started_again_after_a_while_and_the_run_says_so(tmp_path: Path) -> None:
    made = rundir.create(tmp_path, "run")

    def deaths() -> list[Event]:
        frames = [stamped.frame() for stamped in read(made.journal)]
        return [frame for frame in frames if isinstance(frame, Event) and frame.kind == "compact.died"]

    with Supervisor(made, compaction_backoff=Backoff((0.05, 3600.0))) as supervisor:
        assert supervisor.start_hub(HubConfig(compact=True), cancelled=lambda: False)
        first = supervisor._children["compact"]
        first.kill()
        first.wait(PATIENCE)

        def again() -> bool:
            supervisor.keep_hub()
            return supervisor._children["compact"].pid != first.pid

        until(again, "the compaction to be started again")
        second = supervisor._children["compact"]
        assert second.poll() is None
        second.kill()
        second.wait(PATIENCE)
        for _ in range(50):
            assert not supervisor.keep_hub(), "the hub lives"
        assert supervisor._children["compact"] is second, "and not at once the second time"
        until(lambda: len(deaths()) == 2, "both deaths to be in the journal")
    assert deaths()[0].level == "warn"
    assert "starts again in 0.05 s: " in deaths()[0].text
    assert "killed by SIGKILL" in deaths()[0].text
    assert "starts again in 3600 s, 2 deaths within 10 min" in deaths()[1].text
    assert [note.stem for note in made.parquet.glob("*.json")] == ["000001"], "the end compacts what is left"


def test_the_verb(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compact", "--run", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert out.count("segment ") == len(segments(run.journal))
    assert main(["compact", "--run", str(run.path)]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["compact", "--run", str(run.path), "--check"]) == 0
    assert "as written" in capsys.readouterr().out
    path = next(run.parquet.rglob("*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["compact", "--run", str(run.path), "--check"]) == 1
    assert str(path) in capsys.readouterr().err
