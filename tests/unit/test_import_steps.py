"""The step of each number of a log: declared, logged, text, of the file; and what is left out, counted."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from console.cli.main import main
from console.errors import FAILED
from console.export import frame
from console.formatting import clock
from console.importing.import_run import import_log, read
from console.importing.moments import unix_seconds
from console.importing.rows import LogImportError
from console.importing.steps import STEPS
from console.recorded.frames import frames
from console.replay.source import Recording
from driftline.rundir import find
from tests.unit.import_logs import (
    event,
    field,
    history,
    metric,
    varint,
    wandb_file,
    wandb_run,
    write_events,
    write_lines,
)

FORMS = [*STEPS, "Step", "STEP", "Global Step", "global step", "train/Global_Step", "reward_model/step"]


def by_step(path: Path, name: str, step: str | None = None) -> dict[int, float]:
    """The values of one name by their step."""
    return {row.step: row.values[name] for row in read(path, step).rows if name in row.values}


@pytest.mark.parametrize("axis", FORMS)
@pytest.mark.parametrize("kind", ["jsonl", "text", "csv", "state", "wandb"])
def test_every_name_of_a_step_is_read_from_every_kind_of_log(tmp_path: Path, axis: str, kind: str) -> None:
    name = "reward_model/score"
    rows: list[dict[str, object]] = [{axis: 10 * at, name: at / 4} for at in range(1, 6)]
    if kind == "jsonl":
        path = write_lines(tmp_path / "log.jsonl", rows)
    elif kind == "text":
        path = write_lines(tmp_path / "log.jsonl", [{**row, axis: f"{row[axis]}/50"} for row in rows])
    elif kind == "csv":
        path = tmp_path / "log.csv"
        path.write_text(f"{axis},{name}\n" + "".join(f"{row[axis]},{row[name]}\n" for row in rows))
    elif kind == "state":
        path = tmp_path / "trainer_state.json"
        path.write_text(json.dumps({"log_history": rows}))
    else:
        path = tmp_path / "run-x.wandb"
        path.write_bytes(wandb_file(history(7 * at, row) for at, row in enumerate(rows)))
    assert by_step(path, name) == {10 * at: at / 4 for at in range(1, 6)}
    assert read(path).names() == {name}, "the step is no metric besides"


@pytest.mark.parametrize(
    ("present", "taken"),
    [
        (("train/global_step", "step", "_step"), "train/global_step"),
        (("trainer/global_step", "train/step", "step"), "trainer/global_step"),
        (("global_step", "rollout/step", "step"), "global_step"),
        (("rollout/step", "train/step", "step"), "rollout/step"),
        (("train/step", "training_step"), "train/step"),
        (("training_step", "step"), "training_step"),
        (("step", "_step", "iteration"), "step"),
        (("_step",), "_step"),
    ],
)
def test_of_several_steps_the_surest_is_taken(tmp_path: Path, present: tuple[str, ...], taken: str) -> None:
    numbers = {name: 100 * (at + 1) for at, name in enumerate(present)}
    rows = [{name: first + line for name, first in numbers.items()} | {"rollout/raw_reward": 0.5} for line in range(3)]
    path = write_lines(tmp_path / "log.jsonl", rows)
    assert list(by_step(path, "rollout/raw_reward")) == [numbers[taken] + line for line in range(3)]
    for asked in present:
        assert list(by_step(path, "rollout/raw_reward", asked)) == [numbers[asked] + line for line in range(3)]


def test_seconds_a_step_are_not_taken_for_a_step(tmp_path: Path) -> None:
    rows = [{"_step": at, "timing_s/step": seconds, "timing_s/gen": 1.0} for at, seconds in enumerate((82.5, 80, 81))]
    path = write_lines(tmp_path / "log.jsonl", rows)
    assert list(by_step(path, "timing_s/gen")) == [0, 1, 2]
    assert list(by_step(path, "timing_s/step").values()) == [82.5, 80.0, 81.0]


def test_seconds_an_update_are_not_taken_for_a_step(tmp_path: Path) -> None:
    rows = [{"_step": at, "update": seconds, "reward": 1.0} for at, seconds in enumerate((3.0, 2.5, 3.0))]
    path = write_lines(tmp_path / "log.jsonl", rows)
    assert list(by_step(path, "reward")) == [0, 1, 2]
    assert list(by_step(path, "update").values()) == [3.0, 2.5, 3.0]


@pytest.mark.parametrize("declared", ["reward", "re*", "*"])
def test_a_run_of_wandb_says_itself_what_its_step_is(tmp_path: Path, declared: str) -> None:
    path = tmp_path / "run-x.wandb"
    calls = [history(at, {"reward": at / 4, "my/clock": 5 * at, "step": 1000}) for at in range(4)]
    path.write_bytes(wandb_file([wandb_run("x"), metric(declared, "my/clock"), *calls]))
    assert by_step(path, "reward") == {0: 0.0, 5: 0.25, 10: 0.5, 15: 0.75}
    assert by_step(path, "reward", "_step") == {at: at / 4 for at in range(4)}


def test_a_step_that_was_declared_to_wandb_and_never_logged_is_no_step(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    path.write_bytes(wandb_file([metric("*", "never"), *(history(at, {"reward": 1.0}) for at in range(3))]))
    assert list(by_step(path, "reward")) == [0, 1, 2]
    assert "no step is logged: the steps are W&B's own (_step)" in read(path).notes[0]


def test_a_call_of_wandb_without_the_step_belongs_to_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "run-x.wandb"
    calls: list[dict[str, object]] = [{"early": 1.0}]
    for at in range(3):
        calls += [{"loss": 0.5, "global_step": 10 * at}, {"reward": at / 4}]
    path.write_bytes(wandb_file(history(at, call) for at, call in enumerate(calls)))
    assert by_step(path, "reward") == {0: 0.0, 10: 0.25, 20: 0.5}
    log = read(path)
    assert "3 numbers are logged without a step: each is at the last step before it" in log.notes
    assert log.left.lines() == ["entries without a step: 1 (early)"]


def test_typed_values_of_wandb(tmp_path: Path) -> None:
    items = [
        field(1, field(1, b"integer") + field(5, 5)), field(1, field(1, b"flag") + field(4, 1)),
        field(1, field(1, b"number") + varint(6 << 3 | 1) + b"\x00\x00\x00\x00\x00\x00\xf8\x3f"),
        field(1, field(1, b"words") + field(7, b"abc")), field(1, field(1, b"json") + field(8, b"2.5")),
    ]  # fmt: skip
    path = tmp_path / "run-x.wandb"
    path.write_bytes(wandb_file([field(2, b"".join(items) + field(2, field(1, 4)))]))
    (row,) = read(path).rows
    assert (row.step, row.values) == (4, {"integer": -3.0, "flag": 1.0, "number": 1.5, "json": 2.5})


def test_the_step_of_an_event_is_its_own_unless_another_is_asked_for(tmp_path: Path) -> None:
    rows = [
        (at, tag, value) for at in range(3) for tag, value in (("train/reward", at / 4), ("train/global_step", 10 * at))
    ]
    path = write_events(tmp_path, rows)
    assert list(by_step(path, "train/reward")) == [0, 1, 2]
    assert list(by_step(path, "train/reward", "train/global_step")) == [0, 10, 20]
    with pytest.raises(
        LogImportError, match=r"no entry has a step under 'epoch'; it has: train/reward, train/global_step"
    ):
        read(path, "epoch")


@pytest.mark.parametrize("bad", [1e308, math.inf, -math.inf, math.nan, -1, 2**53, 2.0**54, 1.5, 10**400])
def test_an_entry_with_an_odd_step_is_left_out_and_counted(tmp_path: Path, bad: float) -> None:
    path = write_lines(tmp_path / "log.jsonl", [{"step": at, "reward": 1.0} for at in (0, bad, 2)])
    log = read(path)
    assert [row.step for row in log.rows] == [0, 2]
    assert sum(log.left.counts[reason] for reason in log.left.counts if reason.startswith("entries")) == 1
    made = import_log(path, tmp_path / "runs", "odd")
    assert made.steps == 2
    assert any(line.startswith("entries") and ": 1" in line for line in made.left_out)


@pytest.mark.parametrize("bad", [1e308, math.inf, math.nan, -5])
def test_a_call_of_wandb_with_an_odd_step_is_left_out_and_counted(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "run-x.wandb"
    calls = [history(None, {"reward": 1.0, "_step": step}) for step in (0, bad, 2)]
    path.write_bytes(wandb_file(calls))
    log = read(path)
    assert [row.step for row in log.rows] == [0, 2]
    assert log.left.lines() == ["entries whose step is no whole number from 0 to 2^53 - 1: 1 (_step)"]


def test_an_event_with_a_negative_step_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(event(-1, "train/reward", 1.0, 1.79e9) + event(1, "train/reward", 2.0, 1.79e9))
    log = read(path)
    assert [row.step for row in log.rows] == [1]
    assert log.left.lines() == ["entries whose step is no whole number from 0 to 2^53 - 1: 1 (step)"]


@pytest.mark.parametrize("kind", ["jsonl", "state", "wandb"])
def test_a_name_that_is_no_text_costs_its_entry(tmp_path: Path, kind: str) -> None:
    rows = [{"step": 0, "reward": 1.0}, {"step": 1, "bad\ud800": 1.0}, {"step": 2, "reward": 1.0, "note": "\ud800"}]
    if kind == "jsonl":
        path = write_lines(tmp_path / "log.jsonl", rows)
    elif kind == "state":
        path = tmp_path / "trainer_state.json"
        path.write_text(json.dumps({"log_history": rows}))
    else:
        path = tmp_path / "run-x.wandb"
        path.write_bytes(wandb_file(history(at, row) for at, row in enumerate(rows)))
    made = import_log(path, tmp_path / "runs", "odd")
    assert frame(find(made.path), "metrics")["step"].to_list() == [0, 2]
    lost = "bytes that could not be read" if kind == "wandb" else "entries with a name that is no valid text"
    assert any(lost in line for line in made.left_out)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1.79e9, 1.79e9), (1.79e12, 1.79e9), (1.79e15, 1.79e9), (1.79e18, 1.79e9), (1790000000000000001, 1.79e9),
        ("2026-03-01T12:00:00+00:00", 1772366400.0), ("2026-03-01 12:00:00,500+00:00", 1772366400.5),
        (12.5, None), (0, None), (-1.79e9, None), (1e308, None), (math.inf, None), (math.nan, None), (10**400, None),
        ("yesterday", None), ("", None), (None, None), ([1], None), ("9999-12-31T23:59:59+00:00", None),
    ],
)  # fmt: skip
def test_a_time_in_any_unit_is_seconds_or_none(value: object, seconds: float | None) -> None:
    assert unix_seconds(value) == (None if seconds is None else pytest.approx(seconds, abs=1e-3))


@pytest.mark.parametrize("name", ["time", "timestamp", "_timestamp", "wall_time", "Timestamp", "ts"])
@pytest.mark.parametrize("unit", [1, 1000, 10**6, 10**9])
def test_a_log_with_times_in_nanoseconds_replays(tmp_path: Path, name: str, unit: int) -> None:
    rows = [{"step": at, "reward": 1.0, name: (1_790_000_000 + at) * unit} for at in range(3)]
    made = import_log(write_lines(tmp_path / "log.jsonl", rows), tmp_path / "runs", "times")
    run = find(made.path)
    assert [moment.timestamp() for moment in frame(run, "metrics")["time"]] == [1_790_000_000 + at for at in range(3)]
    recording = Recording(run)
    recording.open()
    recording.at(1)
    shown = {clock(stamped.time) for stamped in frames(run)}
    assert shown >= {clock(1_790_000_000 + at) for at in range(3)}


@pytest.mark.parametrize("time", [1.79e18, 1e308, math.inf, math.nan, -5.0])
def test_an_event_file_with_odd_times_is_a_run(tmp_path: Path, time: float) -> None:
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(event(1, "train/reward", 1.0, time) + event(2, "train/reward", 1.0, 1.79e9))
    made = import_log(path, tmp_path / "runs", "times")
    times = [moment.timestamp() for moment in frame(find(made.path), "metrics")["time"]]
    assert times[1] == 1.79e9
    assert abs(times[0] - 1.79e9) < 1, "converted, or that of the first entry with a time"
    assert any("time stamps" in line for line in made.left_out) == (time != 1.79e18)


def test_a_number_called_time_that_is_none_is_kept(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "log.jsonl", [{"step": 1, "reward": 1.0, "time": 12.5}])
    made = import_log(path, tmp_path / "runs", "times")
    assert made.mapped["time"] == "log/time"
    assert frame(find(made.path), "metrics")["log/time"].to_list() == [12.5]


@pytest.mark.slow
def test_a_step_with_more_numbers_than_a_frame_holds_is_whole(tmp_path: Path) -> None:
    values = {f"layer/{'x' * 300}/{at}": float(at) for at in range(25_000)}
    path = write_lines(tmp_path / "log.jsonl", [{"step": 1, "reward": 1.0, "z" * 500: 1.0, **values}])
    made = import_log(path, tmp_path / "runs", "wide")
    table = frame(find(made.path), "metrics")
    assert table.height == 1
    assert sum(table[name][0] for name in values) == sum(values.values())
    assert any("numbers under a name of more than 400 characters" in line for line in made.left_out)


def test_what_goes_back_is_one_run_and_the_later_wins(tmp_path: Path) -> None:
    steps = [0, 1, 2, 3, 2, 3, 4]
    rows = [{"step": step, "reward": float(at)} for at, step in enumerate(steps)]
    made = import_log(write_lines(tmp_path / "log.jsonl", rows), tmp_path / "runs", "back")
    table = frame(find(made.path), "metrics").sort("step")
    assert table["reward/mean"].to_list() == [0.0, 1.0, 4.0, 5.0, 6.0]
    assert "the log goes back from step 3 to 2: where both have a step, the later counts" in made.notes


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_but_unknown_names_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(tmp_path / "runs"))
    path = write_lines(tmp_path / "log.jsonl", [{"step": 1, "my/own": 1.0, "text": "a", "list": [1]}])
    code = main(["import", str(path), "--as", "own", *(["--json"] if as_json else [])])
    said = capsys.readouterr()
    assert code == FAILED
    assert "none of its 1 names is known: they are kept, but nothing of own-" in said.err
    if as_json:
        report = json.loads(said.out)
        assert (report["known"], report["kept"]) == (False, ["my/own"])
        assert report["left_out"] == ["values that are no single number: 2 (text, list)"]
    else:
        assert "left out: values that are no single number: 2 (text, list)" in said.out
