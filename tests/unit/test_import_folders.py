"""Folders of logs: which run they hold, several runs told apart, parts of one put together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from console.importing.import_run import read
from console.importing.rows import Log, LogImportError
from tests.unit.import_logs import history, wandb_file, wandb_run, write_events, write_lines

Writer = Callable[[Path, str, range, float], None]
"""Writes under a folder, by name, `train/reward` of some steps, all of one value."""


def as_jsonl(root: Path, name: str, steps: range, value: float) -> None:
    write_lines(root / f"{name}.jsonl", [{"step": step, "train/reward": value} for step in steps])


def as_csv(root: Path, name: str, steps: range, value: float) -> None:
    (root / f"{name}.csv").write_text("step,train/reward\n" + "".join(f"{step},{value}\n" for step in steps))


def as_chart(root: Path, name: str, steps: range, value: float) -> None:
    rows = "".join(f'"{step}","{value}","{value}","{value}"\n' for step in steps)
    heads = [f"{name} - train/reward{bound}" for bound in ("", "__MIN", "__MAX")]
    (root / f"{name}.csv").write_text('"Step",' + ",".join(f'"{head}"' for head in heads) + "\n" + rows)


def as_console(root: Path, name: str, steps: range, value: float) -> None:
    (root / f"{name}.log").write_text("".join(f"step:{step} - train/reward:{value} -\n" for step in steps))


def as_events(root: Path, name: str, steps: range, value: float) -> None:
    write_events(root / name, [(step, "train/reward", value) for step in steps], 1.79e9 + 100 * steps.start)


def as_state(root: Path, name: str, steps: range, value: float) -> None:
    folder = root / name / f"checkpoint-{steps[-1]}"
    folder.mkdir(parents=True)
    history_ = [{"step": step, "train/reward": value} for step in steps]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history_}))


def as_wandb(root: Path, name: str, steps: range, value: float) -> None:
    folder = root / "wandb" / f"offline-run-2026010{len(name)}_000000-{name}"
    folder.mkdir(parents=True)
    rows = [history(step, {"train/reward": value, "_timestamp": 1.79e9 + step}) for step in steps]
    (folder / f"run-{name}.wandb").write_bytes(wandb_file([wandb_run(name), *rows]))
    (root / "wandb" / "latest-run").unlink(missing_ok=True)
    (root / "wandb" / "latest-run").symlink_to(folder)


WRITERS: list[Writer] = [as_jsonl, as_csv, as_chart, as_console, as_events, as_state, as_wandb]


def rewards(log: Log) -> dict[int, float]:
    """The value of each step; a later one in the place of an earlier one."""
    return {row.step: row.values["train/reward"] for row in log.rows if "train/reward" in row.values}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("below", ["", "out", "out/logs/deep"])
def test_one_log_in_a_folder_is_the_run(tmp_path: Path, write: Writer, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    write(tmp_path / below, "seed1", range(1, 6), 0.25)
    (tmp_path / "notes.md").write_text("step:1 - a:1")
    assert rewards(read(tmp_path)) == dict.fromkeys(range(1, 6), 0.25)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("count", [2, 3, 9])
def test_several_runs_are_refused_with_their_names(tmp_path: Path, write: Writer, count: int) -> None:
    names = [f"seed{at}" for at in range(count)]
    for at, name in enumerate(names):
        write(tmp_path, name, range(1, 41), at / 8)
    with pytest.raises(LogImportError) as caught:
        read(tmp_path)
    said = str(caught.value)
    assert f"{count} runs in it: " in said
    assert all(name in said for name in names[:6])
    assert ("and 3 more" in said) == (count == 9)
    assert "--only NAME" in said
    chosen = read(tmp_path, only=said.split("runs in it: ")[1].split("; name one")[0].split(", ")[1])
    assert rewards(chosen) == dict.fromkeys(range(1, 41), 0.125)


@pytest.mark.parametrize("write", [as_jsonl, as_csv, as_console, as_events])
def test_the_parts_of_a_resumed_run_are_one_and_the_later_wins(tmp_path: Path, write: Writer) -> None:
    write(tmp_path, "part-1", range(1, 25), 0.25)
    write(tmp_path, "part-2", range(21, 41), 0.5)
    log = read(tmp_path)
    assert rewards(log) == {step: 0.25 if step < 21 else 0.5 for step in range(1, 41)}
    assert any(note.startswith("parts of one run: part-1") for note in log.notes)
    assert "the log goes back from step 24 to 21: where both have a step, the later counts" in log.notes


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (range(1, 41), range(1, 41)),  # seeds
        (range(1, 41), range(2, 41)),  # one without the report before training
        (range(1, 41), range(5, 41, 5)),  # one that reports more rarely
        (range(0, 400, 10), range(10, 410, 10)),
    ],
)
@pytest.mark.parametrize("write", [as_jsonl, as_csv, as_console, as_events])
def test_runs_that_do_not_go_on_with_each_other_are_several(
    tmp_path: Path, write: Writer, first: range, second: range
) -> None:
    write(tmp_path, "a", first, 0.25)
    write(tmp_path, "b", second, 0.5)
    with pytest.raises(LogImportError, match="2 runs in it: a"):
        read(tmp_path)


def test_two_that_ran_at_the_same_time_are_several(tmp_path: Path) -> None:
    for name, steps, begin in (("a", range(1, 41), 0), ("b", range(21, 61), 10)):
        rows = [{"step": step, "reward": 0.5, "time": 1.79e9 + begin + at} for at, step in enumerate(steps)]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(LogImportError, match="2 runs in it: a"):
        read(tmp_path)


def test_the_files_of_one_run_of_wandb_are_one_and_the_later_wins(tmp_path: Path) -> None:
    for day, steps, value in ((1, range(1, 25), 0.25), (2, range(21, 41), 0.5)):
        folder = tmp_path / "wandb" / f"offline-run-2026010{day}_000000-abc"
        folder.mkdir(parents=True)
        rows = [history(step, {"train/reward": value}) for step in steps]
        (folder / "run-abc.wandb").write_bytes(wandb_file([wandb_run("abc"), *rows]))
    (tmp_path / "wandb" / "latest-run").symlink_to(folder)
    assert rewards(read(tmp_path / "wandb" / "latest-run")) == dict.fromkeys(range(21, 41), 0.5)
    for path in (tmp_path, tmp_path / "wandb"):
        assert rewards(read(path)) == {step: 0.25 if step < 21 else 0.5 for step in range(1, 41)}
    assert rewards(read(tmp_path / "wandb" / "offline-run-20260101_000000-abc")) == dict.fromkeys(range(1, 25), 0.25)


@pytest.mark.parametrize("launches", [2, 3])
@pytest.mark.parametrize("resumed", [2, 5, 11])
def test_the_launches_of_the_trainer_are_one_run(tmp_path: Path, launches: int, resumed: int) -> None:
    begins = [1 + at * (resumed - 1) for at in range(launches)]
    for at, begin in enumerate(begins):
        folder = tmp_path / "out" / "runs" / f"Nov28_1{at}-00-00_host"
        write_events(folder, [(step, "train/reward", at / 8) for step in range(begin, begin + 10)], 1.79e9 + 100 * at)
    expected = {}
    for at, begin in enumerate(begins):
        expected |= dict.fromkeys(range(begin, begin + 10), at / 8)
    for path in (tmp_path, tmp_path / "out", tmp_path / "out" / "runs"):
        assert rewards(read(path)) == expected


def test_launches_that_begin_at_one_step_are_several_runs(tmp_path: Path) -> None:
    for hour in (10, 12):
        write_events(tmp_path / f"Nov28_{hour}-00-00_host", [(step, "train/reward", 1.0) for step in range(1, 9)])
    with pytest.raises(LogImportError, match="2 runs in it: Nov28_10-00-00_host, Nov28_12-00-00_host"):
        read(tmp_path)


def test_two_event_files_of_one_folder_are_one_run(tmp_path: Path) -> None:
    write_events(tmp_path, [(step, "train/reward", 0.25) for step in range(1, 25)], name="1")
    write_events(tmp_path, [(step, "train/reward", 0.5) for step in range(21, 41)], name="2")
    assert rewards(read(tmp_path)) == {step: 0.25 if step < 21 else 0.5 for step in range(1, 41)}


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["train", "eval"], {"train/loss", "eval/loss"}),
        (["", "eval"], {"loss", "eval/loss"}),
        (["run/train", "run/validation"], {"train/loss", "validation/loss"}),
    ],
)
def test_writers_of_one_run_keep_apart_by_their_folders(tmp_path: Path, folders: list[str], names: set[str]) -> None:
    for folder in folders:
        write_events(tmp_path / folder, [(step, "loss", 1.0) for step in range(3)])
    log = read(tmp_path)
    assert log.names() == names
    assert len(log.rows) == 3


def test_files_without_a_name_in_common_are_one_run(tmp_path: Path) -> None:
    write_lines(tmp_path / "trainer" / "metrics.jsonl", [{"step": at, "mismatch_kl/all/mean": 0.1} for at in range(3)])
    write_lines(tmp_path / "orchestrator" / "metrics.jsonl", [{"step": at, "reward/all/mean": 0.5} for at in range(3)])
    log = read(tmp_path)
    assert [(row.step, len(row.values)) for row in log.rows] == [(0, 2), (1, 2), (2, 2)]
    assert log.notes == ["parts of one run: orchestrator/metrics.jsonl, trainer/metrics.jsonl"]


def test_charts_of_one_run_of_wandb_are_one(tmp_path: Path) -> None:
    for metric in ("train/reward", "train/entropy"):
        rows = "".join(f'"{step}","{step / 8}","0","1"\n' for step in range(3))
        heads = ",".join(f'"grpo - a - {metric}{bound}"' for bound in ("", "__MIN", "__MAX"))
        (tmp_path / f"{metric[6:]}.csv").write_text(f'"train/global_step",{heads}\n{rows}')
    log = read(tmp_path)
    assert log.run == "grpo - a"
    assert [row.values for row in log.rows] == [{"train/reward": at / 8, "train/entropy": at / 8} for at in range(3)]
    assert "the chart was downloaded in buckets: a value is the mean of several steps" in log.notes


def test_the_newest_checkpoint_has_the_whole_history(tmp_path: Path) -> None:
    for last in (20, 40, 5):
        as_state(tmp_path, "out", range(1, last + 1), last / 100)
    for path in (tmp_path, tmp_path / "out"):
        log = read(path)
        assert rewards(log) == dict.fromkeys(range(1, 41), 0.4)
        assert "read from" in log.notes[0]
        assert "checkpoint-40/trainer_state.json" in log.notes[0]


def test_what_else_a_folder_has_is_said(tmp_path: Path) -> None:
    as_events(tmp_path, "runs", range(1, 5), 0.5)
    as_state(tmp_path, "", range(1, 3), 0.25)
    log = read(tmp_path)
    assert log.kind == "TensorBoard"
    assert "not read: 1 trainer_state.json of the same folder" in log.notes


@pytest.mark.parametrize("name", ["", "data.jsonl", "requirements.txt", "weights.csv"])
def test_a_folder_without_a_log_says_what_is_looked_for(tmp_path: Path, name: str) -> None:
    if name:
        (tmp_path / name).write_text('{"prompt": "a", "answer": 1}\n')
    with pytest.raises(LogImportError, match="no log in it: neither a W&B run"):
        read(tmp_path)


def test_samples_of_single_steps_are_no_logs(tmp_path: Path) -> None:
    as_jsonl(tmp_path, "metrics", range(3), 0.5)
    for step in (1, 2):
        samples = [{"input": "a", "output": "b", "score": 0.5, "step": step}] * 8
        write_lines(tmp_path / "rollout_data" / f"{step}.jsonl", samples)
    assert rewards(read(tmp_path)) == dict.fromkeys(range(3), 0.5)


def test_one_of_several_that_is_not_there(tmp_path: Path) -> None:
    as_jsonl(tmp_path, "seed1", range(3), 0.5)
    with pytest.raises(LogImportError, match=r"there is no run 'seed2' in it; it has: seed1\.jsonl"):
        read(tmp_path, only="seed2")
    with pytest.raises(LogImportError, match="there is no run 'seed2' in it, it is a log of one run"):
        read(tmp_path / "seed1.jsonl", only="seed2")
