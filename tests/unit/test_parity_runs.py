"""Runs as the verdict sees them: from journals, whatever happened to the run, and from exported tables."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

import console.parity.runs as parity_runs
from console.parity.runs import Corrected, FixChange, Run, SourceError, open_run, read_table, run_from_frames
from console.recorded.compaction.compact import compact
from driftline.frames import EngineFix, FixState, Frame, Metrics, RunState, Stamped, encode
from driftline.journal import journal as journal_module
from driftline.journal.journal import read, segments
from driftline.rundir import RunError, create
from tests.unit.runs import journal


def stamped(frames: list[Frame], producer: str = "trainer") -> list[Stamped]:
    return [Stamped(i + 1, 0.0, producer, msgspec.Raw(encode(frame))) for i, frame in enumerate(frames)]


def metrics(step: int, **values: float) -> Metrics:
    return Metrics(step, step, 0.0, {name.replace("__", "/"): value for name, value in values.items()})


def fix(*values: str, name: str = "prefix-cache-off") -> FixState:
    engines = tuple(EngineFix(f"engine-{i}", value, "live") for i, value in enumerate(values))
    return FixState(name, "on", 0, "", 0.0, "live", engines)


def points(run: Run, name: str) -> dict[int, float]:
    series = run.series[name]
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def test_values_by_step_under_the_catalogues_names() -> None:
    run = run_from_frames("r", stamped([metrics(1, reward=0.5), metrics(3, reward__mean=0.75, mine=1.0)]))
    assert points(run, "reward/mean") == {1: 0.5, 3: 0.75}
    assert points(run, "mine") == {3: 1.0}


def test_a_nan_stays_a_nan_and_a_later_value_wins() -> None:
    run = run_from_frames("r", stamped([metrics(1, reward=math.nan), metrics(2, reward=1.0), metrics(2, reward=2.0)]))
    assert math.isnan(points(run, "reward/mean")[1])
    assert points(run, "reward/mean")[2] == 2.0


def test_a_resumed_run_forgets_its_first_life_from_there_on() -> None:
    frames: list[Frame] = [metrics(step, reward=float(step)) for step in range(1, 9)]
    frames += [metrics(step, reward=-float(step)) for step in (4, 5)]
    assert points(run_from_frames("r", stamped(frames)), "reward/mean") == {1: 1, 2: 2, 3: 3, 4: -4, 5: -5}


def correction(step: int, value: str, since: int) -> RunState:
    return RunState("r", "running", step, 9, step, 0.0, correction=value, correction_since=since)


def test_corrections_by_the_steps_that_they_were_on_in() -> None:
    frames: list[Frame] = [correction(0, "off", -1)]
    for step in range(1, 10):
        frames += [correction(step, "tis" if 3 <= step < 6 else "icepop" if step >= 6 else "off", step // 3 * 3)]
        frames += [metrics(step, reward=0.5)]
    run = run_from_frames("r", stamped(frames))
    tis, icepop = Corrected("tis", 3, 5), Corrected("icepop", 6, None)
    assert run.corrected(None, None) == [tis, icepop]
    assert run.corrected(None, 2) == []
    assert run.corrected(None, 3) == [tis]
    assert run.corrected(5, 5) == [tis]
    assert run.corrected(6, None) == [icepop]
    assert run_from_frames("r", stamped([metrics(1, reward=0.5)])).corrected(None, None) == []
    from_the_start = run_from_frames("r", stamped([correction(0, "tis", -1), metrics(1, reward=0.5)]))
    assert from_the_start.corrected(1, 1) == [Corrected("tis", 0, None)]


def test_a_number_that_comes_late_is_no_second_life() -> None:
    frames: list[Frame] = [metrics(1, reward=1.0), metrics(2, reward=2.0), metrics(1, entropy=0.5)]
    run = run_from_frames("r", stamped(frames))
    assert points(run, "reward/mean") == {1: 1.0, 2: 2.0}
    assert points(run, "policy/entropy") == {1: 0.5}


def test_fixes_over_the_steps() -> None:
    steps = [metrics(1, reward=1.0), metrics(5, reward=1.0)]
    run = run_from_frames("r", stamped([fix(""), fix("off", "off"), *steps, fix("on", "off"), fix("on", "on")]))
    assert [change for change in run.fixes if change.step] == [
        FixChange(5, "prefix-cache-off", "mixed"), FixChange(5, "prefix-cache-off", "on"),
    ]  # fmt: skip
    assert run.fixes_at(4) == {"prefix-cache-off": "off"}
    assert run.fixes_at(5) == {"prefix-cache-off": "on"}


def test_a_synthetic_run_says_so() -> None:
    state = RunState("r", "running", 1, 2, 1, 0.0, synthetic=True)
    assert run_from_frames("r", stamped([state, metrics(1, reward=1.0)])).synthetic


def test_frames_of_a_newer_version_are_left_out() -> None:
    unknown = Stamped(1, 0.0, "trainer", msgspec.Raw(msgspec.msgpack.encode(["zz", 1])))
    assert points(run_from_frames("r", [unknown, *stamped([metrics(1, reward=1.0)])]), "reward/mean") == {1: 1.0}


def test_a_table_in_any_order_with_gaps(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pl.DataFrame(
        {"step": [3, 1, 2], "critic/score/mean": [0.3, 0.1, None], "note": ["a", "b", "c"], "policy/lr": [None] * 3},
        schema_overrides={"policy/lr": pl.Float64},
    ).write_parquet(path)
    run = open_run(str(path))
    assert run.id == "old"
    assert points(run, "reward/mean") == {1: 0.1, 3: 0.3}
    assert set(run.series) == {"reward/mean"}
    assert run.series["reward/mean"].steps.dtype == np.int64


def test_an_exported_table_keeps_its_run(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    metadata = {"driftline.run": "demo-1234", "driftline.synthetic": "true"}
    pl.DataFrame({"step": [1], "reward/mean": [0.5]}).write_parquet(path, metadata=metadata)
    run = read_table(path)
    assert (run.id, run.synthetic) == ("demo-1234", True)


def test_what_is_no_table_of_metrics(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no such file"):
        open_run(str(tmp_path / "none.parquet"))
    (tmp_path / "bad.parquet").write_bytes(b"no")
    with pytest.raises(SourceError, match="not a Parquet file"):
        open_run(str(tmp_path / "bad.parquet"))
    pl.DataFrame({"time": [1]}).write_parquet(tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="no column 'step'"):
        open_run(str(tmp_path / "other.parquet"))


def test_no_such_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path))
    with pytest.raises(RunError, match=r"no run 'absent'.*FILE\.parquet"):
        open_run("absent")


def test_what_the_journal_has_no_more_is_judged_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that keeps little (`[hub] keep_*`) leaves a run's beginning in Parquet alone."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 900)
    made = create(tmp_path, "kept")
    journal(made, [fix("off"), *(metrics(step, reward=float(step)) for step in range(60)), fix("on")])
    before = open_run(str(made.path))
    list(compact(made))
    for path in segments(made.journal)[:-1]:
        path.unlink()
    after = open_run(str(made.path))
    assert points(after, "reward/mean") == points(before, "reward/mean") == {step: float(step) for step in range(60)}
    assert after.fixes == before.fixes


@pytest.mark.parametrize("seed", range(12))
def test_a_run_read_in_bulk_is_the_run_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Runs in order (even seeds), which need no frame of numbers decoded, and resumed ones."""
    monkeypatch.setattr(journal_module, "SEGMENT_BYTES", 4_000)
    rng = np.random.default_rng(seed)
    frames: list[Frame] = [fix("off")]
    step, names = 0, ["reward", "mine", "policy/entropy"]
    for _ in range(300):
        step += 1 if rng.random() < 0.9 or seed % 2 == 0 else -int(rng.integers(0, 20))
        if rng.random() < 0.05:
            names = [str(name) for name in rng.permutation(["reward", "mine", "policy/entropy", "late"])[:3]]
        frames.append(Metrics(step, 0, 0.0, {name: float(rng.choice([1.5, math.nan, step / 7])) for name in names}))
        if rng.random() < 0.1:
            frames.append(fix(str(rng.choice(["on", "off"])), "on"))
        if rng.random() < 0.05:
            frames.append(correction(step, str(rng.choice(["off", "tis"])), step))
    made = create(tmp_path, "bulk")
    journal(made, frames)
    expected = run_from_frames(made.id, read(made.journal))
    if seed % 2 == 0:
        monkeypatch.setattr(parity_runs, "run_from_frames", None)
    for gone in (0, 2):
        list(compact(made))
        for path in segments(made.journal)[:gone]:
            path.unlink()
        found = open_run(str(made.path))
        assert (found.fixes, found.corrections, found.synthetic) == (
            expected.fixes, expected.corrections, expected.synthetic,
        )  # fmt: skip
        assert found.series.keys() == expected.series.keys()
        for name, series in expected.series.items():
            np.testing.assert_array_equal(found.series[name].steps, series.steps)
            np.testing.assert_array_equal(found.series[name].values, series.values)


def test_a_file_is_the_one_that_was_named(tmp_path: Path) -> None:
    """Not another that its name would be a pattern for, and its folder's name is no column."""
    folder = tmp_path / "reward=9"
    folder.mkdir()
    pl.DataFrame({"step": [1, 2], "reward": [0.5, 0.75]}).write_parquet(folder / "seed[1].parquet")
    pl.DataFrame({"step": [1, 2], "reward": [7.0, 7.0]}).write_parquet(folder / "seed1.parquet")
    assert points(read_table(folder / "seed[1].parquet"), "reward/mean") == {1: 0.5, 2: 0.75}
