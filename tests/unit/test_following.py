"""A run that is followed by its files: what comes when they grow, and nothing twice, over a real hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.cli.main import main
from console.following.growing_log import GrowingLog
from console.importing.rows import SeveralRunsError, UnknownKindError
from console.recorded.frames import frames
from driftline.frames import Event, Metrics, RunState, Tokens
from driftline.rundir import RunDir
from tests import signals
from tests.unit.token_logs import prime_rl

PATIENCE = 60.0
PAIRS = [[(-0.5, -0.25), (-1.0, -1.5)], [(-2.0, -2.0)]]


def write(path: Path, first: int, last: int, **more: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for step in range(first, last + 1):
            file.write(json.dumps({"step": step, "reward/all/mean": step / 10} | more) + "\n")


def polled(log: GrowingLog) -> list[tuple[int, int, dict[str, float]]]:
    return [(life, frame.step, frame.values) for life, frame in log.poll()]


def test_a_log_gives_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = GrowingLog(path)
    assert polled(log) == []
    assert log.waiting == f"{path}: not there yet"
    path.touch()
    assert polled(log) == []
    assert "no line of it is a JSON object" in log.waiting
    write(path, 1, 2)
    assert polled(log) == [(0, 1, {"reward/mean": 0.1}), (0, 2, {"reward/mean": 0.2})]
    assert log.waiting == ""
    assert polled(log) == []
    write(path, 3, 3)
    assert polled(log) == [(0, 3, {"reward/mean": 0.3})]


def test_half_a_line_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 1)
    log = GrowingLog(path)
    polled(log)
    line = json.dumps({"step": 2, "reward/all/mean": 0.2})
    with path.open("a") as file:
        file.write(line[:20])
    assert polled(log) == []
    with path.open("a") as file:
        file.write(line[20:] + "\n")
    assert polled(log) == [(0, 2, {"reward/mean": 0.2})]


def test_a_number_that_comes_late_is_sent_with_its_step(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2)
    log = GrowingLog(path)
    polled(log)
    with path.open("a") as file:
        file.write(json.dumps({"step": 2, "eval/x": 5.0}) + "\n")
    assert polled(log) == [(0, 2, {"reward/mean": 0.2, "eval/x": 5.0})]


def test_a_resumed_run_is_another_life(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 3)
    log = GrowingLog(path)
    polled(log)
    write(path, 2, 2)
    assert polled(log) == [(1, 2, {"reward/mean": 0.2})]


def test_a_log_that_is_taken_away_or_cut_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 3)
    log = GrowingLog(path)
    polled(log)
    text = path.read_text()
    path.unlink()
    assert polled(log) == []
    path.write_text("")
    assert polled(log) == []
    path.write_text(text)
    write(path, 4, 4)
    assert polled(log) == [(0, 4, {"reward/mean": 0.4})]


def test_a_folder_is_followed_over_its_files(tmp_path: Path) -> None:
    log = GrowingLog(tmp_path)
    assert polled(log) == []
    write(tmp_path / "trainer" / "metrics.jsonl", 1, 2)
    assert [step for _, step, _ in polled(log)] == [1, 2]


def test_what_can_never_be_followed_is_an_error(tmp_path: Path) -> None:
    for run in ("a", "b"):
        write(tmp_path / run / "metrics.jsonl", 1, 9)
    with pytest.raises(SeveralRunsError):
        polled(GrowingLog(tmp_path))
    (tmp_path / "x.exe").write_text("1")
    with pytest.raises(UnknownKindError):
        polled(GrowingLog(tmp_path / "x.exe"))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "runs"
    monkeypatch.setenv("DRIFTLINE_RUNS", str(root))
    return root


def recorded(root: Path) -> list[Metrics | Tokens | Event | RunState]:
    [run] = root.iterdir()
    found = [stamped.frame() for stamped in frames(RunDir(run))]
    return [frame for frame in found if isinstance(frame, (Metrics, Tokens, Event, RunState))]


@pytest.mark.slow
def test_once_sends_all_that_is_there(tmp_path: Path, runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "outputs"
    for step in (1, 2):
        prime_rl(source, step, PAIRS)
    write(source / "metrics.jsonl", 1, 3, unknown=1.0)
    assert main(["follow", str(source), "--once"]) == 0
    assert f"follows {source}; nothing is written there" in capfd.readouterr().out
    found = recorded(runs)
    steps = [(frame.step, type(frame).__name__) for frame in found if isinstance(frame, (Metrics, Tokens))]
    both = [(1, "Metrics"), (1, "Metrics"), (1, "Tokens"), (2, "Metrics"), (2, "Metrics"), (2, "Tokens")]
    assert steps == [*both, (3, "Metrics")]
    states = [frame for frame in found if isinstance(frame, RunState)]
    assert [state.status for state in states] == ["starting", "running", "finished"]
    assert {state.version for state in states} == {-1}
    assert "kept under their own names: unknown" in [frame.text for frame in found if isinstance(frame, Event)]


@pytest.mark.slow
def test_once_without_a_log_fails_with_what_is_missing(tmp_path: Path, runs: Path, capfd) -> None:
    assert main(["follow", str(tmp_path / "nothing.jsonl"), "--once"]) == 1
    assert "nothing was followed: " in (said := capfd.readouterr().err)
    assert "nothing.jsonl: not there yet" in said


def test_a_pickle_is_refused_before_anything_starts(tmp_path: Path, runs: Path, capsys) -> None:
    assert main(["follow", str(tmp_path / "7.pt")]) == 1
    assert "not a log that can be followed" in capsys.readouterr().err
    assert not runs.exists()


@pytest.fixture
def following(tmp_path: Path, runs: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "console.cli", "follow", str(tmp_path / "outputs")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"DRIFTLINE_RUNS": str(runs)}, preexec_fn=signals.restore_defaults,
    )  # fmt: skip
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=PATIENCE)


def until(what: str, condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def newest(runs: Path) -> int:
    if not runs.exists() or not list(runs.iterdir()):
        return -1
    return max((frame.step for frame in recorded(runs) if isinstance(frame, Metrics)), default=-1)


@pytest.mark.slow
def test_a_run_that_begins_later_is_followed_until_the_signal(
    tmp_path: Path, runs: Path, following: subprocess.Popen[str]
) -> None:
    source = tmp_path / "outputs"
    until("the hub", lambda: runs.exists() and list(runs.iterdir()) and RunDir(next(runs.iterdir())).live())
    write(source / "metrics.jsonl", 1, 2)
    until("steps that came after the start", lambda: newest(runs) == 2)
    prime_rl(source, 3, PAIRS)
    write(source / "metrics.jsonl", 3, 3)
    until("the third step", lambda: newest(runs) == 3)
    following.send_signal(signal.SIGINT)
    out, _ = following.communicate(timeout=PATIENCE)
    assert following.returncode == 130, out
    found = recorded(runs)
    assert [frame.step for frame in found if isinstance(frame, Metrics)] == [1, 2, 3, 3]
    assert any(isinstance(frame, Tokens) for frame in found)
    assert [frame for frame in found if isinstance(frame, RunState)][-1].status == "finished"
