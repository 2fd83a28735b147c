"""Who looks after a run: the supervisor's lock and record, and how status, doctor and console show it."""

from __future__ import annotations

import fcntl
import gc
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from console.cli.main import main
from console.connect import resolve
from console.doctor import checks
from console.errors import FAILED, NO_RUN, OK, USAGE, CommandError
from console.launch import children, ending
from console.status import supervision as shown
from console.status.link_health import Link, banner
from driftline import supervision
from driftline.frames import RunState
from driftline.rundir import RunDir, RunError, create, find
from driftline.supervision import Supervision

RECORD = Supervision(pid=7, host=socket.gethostname(), started=1000.0, detached=True, hub_window=600.0)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return create(tmp_path / "runs", "run")


def test_a_supervisor_holds_a_lock_and_the_second_one_hears_who(run: RunDir) -> None:
    assert not run.supervised()
    lock = supervision.take(run)
    supervision.write(run, RECORD)
    assert run.supervised()
    assert not supervision.lost(run)
    with pytest.raises(supervision.HeldError, match=r"has a supervisor already \(process 7\)"):
        supervision.take(run)
    os.close(lock)
    assert supervision.lost(run), "the record is there, and its writer has gone"
    run.supervisor_file.unlink()
    assert not supervision.lost(run), "it has ended in order"


@pytest.mark.parametrize("text", ["", "{", '{"pid": "seven"}', "[]", "\0" * 70_000])
def test_a_damaged_record_is_none(run: RunDir, text: str) -> None:
    run.supervisor_file.write_text(text)
    assert supervision.read(run) is None
    assert shown.look(run) is None


def test_the_newest_run_without_a_name_may_be_one_whose_hub_is_away(run: RunDir) -> None:
    with pytest.raises(RunError, match="no live run"):
        find(None, run.path.parent)
    lock = supervision.take(run)
    assert find(None, run.path.parent) == run
    os.close(lock)


@pytest.mark.parametrize(
    ("record", "alive", "text"),
    [
        (RECORD, True, ""),
        (replace(RECORD, hub_deaths=2, hub_died=1000.0), True, "started again, 2 deaths within 10 min"),
        (replace(RECORD, hub_deaths=2, hub_died=100.0), True, ""),
        (
            replace(RECORD, hub_deaths=5, hub_died=1000.0, hub_away=990.0, hub_next=1007.0),
            True,
            "away for 20 s, being started, 5 deaths within 10 min",
        ),
        (
            replace(RECORD, hub_deaths=1, hub_died=1000.0, hub_away=1000.0, hub_next=1020.0),
            True,
            "away for 10 s, started again in 10 s, 1 death within 10 min",
        ),
        (replace(RECORD, hub_deaths=1, hub_died=1000.0), False, ""),
    ],
)
def test_the_clause_about_the_hub(record: Supervision, alive: bool, text: str) -> None:
    care = shown.Care(record, alive)
    assert shown.hub_text(care, 1010.0) == text
    assert shown.words(care, 1010.0) == [f"hub {text}" if text else "", "" if alive else "NO SUPERVISOR"]


def test_the_banner_says_when_the_hub_comes_back_and_that_nothing_brings_it_back() -> None:
    running = RunState("r", "running", 1, 2, 3, 4.0)
    away = Link(True, 20.0, gone=True, care="away for 10 s, started again in 12 s, 5 deaths within 10 min")
    found = banner(running, away, [], None)
    assert found is not None
    assert (found.word, found.level) == ("HUB LOST", "error")
    assert "started again in 12 s" in found.text
    found = banner(running, Link(True, 20.0, gone=True, unsupervised=True), [], None)
    assert found is not None
    assert (found.word, found.text) == ("HUB LOST", "its process has ended, and nothing starts it again: no supervisor")
    found = banner(running, Link(True, 0.1, unsupervised=True), [], None)
    assert found is not None
    assert (found.word, found.level) == ("NO SUPERVISOR", "warn")
    assert banner(running, Link(True, 0.1), [], None) is None


def test_the_doctor_s_finding() -> None:
    assert checks.supervisor(checks.SupervisorFact(7, True, "")).verdict == "ok"
    assert checks.supervisor(checks.SupervisorFact(7, True, "away")).text == "hub: away"
    lost = checks.supervisor(checks.SupervisorFact(7, False, ""))
    assert (lost.verdict, lost.todo) == ("warn", "driftline stop ends the run in order")


def test_status_of_a_run_whose_hub_is_away(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    lock = supervision.take(run)
    now = time.time()
    supervision.write(run, replace(RECORD, hub_deaths=3, hub_died=now, hub_away=now, hub_next=now + 60.0))
    assert main(["status", "--run", str(run.path), "--json"]) == OK
    document = json.loads(capsys.readouterr().out)
    assert document["live"] is False
    care = document["supervisor"]
    assert (care["alive"], care["hub_deaths"], care["detached"]) == (True, 3, True)
    assert care["hub_next"] == pytest.approx(now + 60.0)
    assert main(["status", "--run", str(run.path)]) == OK
    assert ", 3 deaths within 10 min" in capsys.readouterr().out
    for verb in ("attach", "tail --run", "watch", "fix list --run", "diagnose --active"):
        assert main([*verb.split(), str(run.path)]) == NO_RUN, verb
        assert "has no hub now; its supervisor starts it again" in capsys.readouterr().err, verb
    os.close(lock)
    assert main(["status", "--run", str(run.path)]) == OK
    assert "NO SUPERVISOR" in capsys.readouterr().out


def hold(lock: Path) -> int:
    """Hold a run as its hub does."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def test_a_hub_that_is_being_started_again_is_waited_for(run: RunDir) -> None:
    lock, held = supervision.take(run), []
    supervision.write(run, replace(RECORD, hub_away=time.time()))
    back = threading.Timer(0.5, lambda: held.append(hold(run.lock)))
    back.start()
    target = resolve.live_run(str(run.path))
    back.join()
    assert (held != [], target.live()) == (True, True)
    for fd in (lock, *held):
        os.close(fd)


def test_a_console_that_does_not_open_leaves_the_collector_as_it_was(run: RunDir) -> None:
    assert gc.isenabled()
    assert main(["attach", str(run.path)]) == NO_RUN
    assert gc.isenabled()


def test_a_run_that_ends_while_its_hub_is_waited_for_has_ended(run: RunDir) -> None:
    lock = supervision.take(run)
    supervision.write(run, replace(RECORD, hub_away=time.time()))
    end = threading.Timer(0.5, os.close, (lock,))
    end.start()
    with pytest.raises(CommandError, match="its hub has ended"):
        resolve.live_run(str(run.path))
    end.join()


def stop(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["stop", *words])
    return code, capsys.readouterr().err


def test_stop_says_why_it_cannot(
    run: RunDir, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_RUNS", str(run.path.parent))
    code, text = stop(capsys, "no-such-run")
    assert (code, text.startswith("driftline: no run 'no-such-run': ")) == (NO_RUN, True)
    code, text = stop(capsys)
    assert (code, "no live run" in text) == (NO_RUN, True)
    code, text = stop(capsys, run.id)
    assert (code, f"run {run.id} has ended already" in text) == (NO_RUN, True)
    code, text = stop(capsys, run.id, "--run", "another")
    assert (code, "give the run once" in text) == (USAGE, True)
    supervision.write(run, replace(RECORD, host="a-box-elsewhere"))
    code, text = stop(capsys, run.id)
    assert (code, f"run {run.id} is on machine a-box-elsewhere" in text) == (FAILED, True)
    run.supervisor_file.unlink()
    monkeypatch.setattr(ending.os, "geteuid", lambda: run.path.stat().st_uid + 1)
    code, text = stop(capsys, run.id)
    assert (code, "belongs to user " in text, "driftline keys new" in text) == (FAILED, True, True)


def test_what_is_left_of_a_run_that_lost_its_supervisor_is_ended_by_stop(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    left = children.start(run, "left", [sys.executable, "-c", "import time; time.sleep(600)"], dies_with_parent=False)
    try:
        supervision.write(run, RECORD)
        assert [process.pid for process in children.of_run(run)] == [left.pid]
        assert main(["stop", str(run.path), "--wait"]) == OK
        assert left.wait(30) < 0
        assert not run.supervisor_file.exists()
        assert "has ended" in capsys.readouterr().out
    finally:
        left.kill()
        left.wait()
