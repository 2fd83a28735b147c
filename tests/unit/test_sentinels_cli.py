"""`driftline watch` and `driftline sentinels` from outside: over a journal, and over a real hub."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.recorded.compaction.compact import compact
from console.sentinels import load
from driftline.frames import Metrics
from driftline.journal.journal import read, segments
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, create
from tests.unit.hubs import PATIENCE, Hub, until
from tests.unit.runs import NOW, journal
from tests.unit.sentinel_runs import run_state
from tests.unit.test_cli import driftline, sentence

MISMATCH = "mismatch/abs_diff_mean"


def reported(step: int, value: float) -> Metrics:
    return Metrics(step, step, NOW + step, {MISMATCH: value})


@pytest.fixture
def ended(tmp_path: Path) -> RunDir:
    """A run whose mismatch was beyond its limit from step 11 to 15, and is again at its end."""
    run = create(tmp_path / "runs", "old")
    values = [0.01] * 10 + [0.2] * 5 + [0.01] * 10 + [0.3] * 5
    frames = [reported(step, value) for step, value in enumerate(values, 1)]
    journal(run, [*frames, run_state("finished", 30)])
    return run


def test_an_ended_run_is_judged_from_its_journal(tmp_path: Path, ended: RunDir) -> None:
    done = driftline("watch", ended.id, cwd=tmp_path)
    lines = [line[9:] for line in done.stdout.splitlines()]
    assert lines == [
        "!! mismatch-limit at step 11: mismatch mean|Δlogp| 0.2, above its limit 0.05",
        "ok mismatch-limit at step 11: mismatch mean|Δlogp| 0.2, above its limit 0.05; back at 0.01 at step 20",
        "!! mismatch-limit at step 26: mismatch mean|Δlogp| 0.3, above its limit 0.05",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert driftline("watch", ended.id, "--exit-code", cwd=tmp_path).returncode == 7


@pytest.mark.slow
def test_what_is_only_parquet_is_seen_too(tmp_path: Path, ended: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that keeps little leaves a run's beginning in Parquet alone, alarms and all."""
    made = create(tmp_path / "runs", "kept")
    monkeypatch.setattr("driftline.journal.journal.SEGMENT_BYTES", 900)
    journal(made, [stamped.frame() for stamped in read(ended.journal)])
    verbs = [("watch",), ("tail", "--run"), ("status", "--run")]
    before = [driftline(*verb, made.id, cwd=tmp_path).stdout for verb in verbs]
    assert all(before)
    list(compact(made))
    *closed, _ = segments(made.journal)
    assert len(closed) > 1
    for path in closed:
        path.unlink()
    after = [driftline(*verb, made.id, cwd=tmp_path) for verb in verbs]
    assert [done.stdout for done in after] == before
    assert [done.stderr for done in after] == ["", "", ""]

    (made.parquet / "reports" / f"{closed[0].stem}.parquet").write_bytes(b"noise")
    for verb in verbs:
        done = driftline(*verb, made.id, cwd=tmp_path)
        assert "the compacted tables cannot be read; see: driftline compact" in sentence(done)
        assert done.returncode == 1


def test_what_is_damaged_is_said(tmp_path: Path, ended: RunDir) -> None:
    (path,) = segments(ended.journal)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for verb in (("watch",), ("tail", "--run"), ("status", "--run")):
        done = driftline(*verb, ended.id, cwd=tmp_path)
        assert "bytes of the journal are damaged and were left out" in sentence(done)
        assert done.stdout


def test_once_prints_what_stands_as_json_too(tmp_path: Path, ended: RunDir) -> None:
    done = driftline("watch", ended.id, "--once", "--json", "--exit-code", cwd=tmp_path)
    (line,) = done.stdout.splitlines()
    alarm = json.loads(line)
    assert (alarm["rule"], alarm["state"], alarm["step"], alarm["value"]) == ("mismatch-limit", "raised", 26, 0.3)
    assert alarm["time"] == NOW + 26
    assert done.returncode == 7


def test_a_users_rules_are_obeyed(tmp_path: Path, ended: RunDir) -> None:
    (tmp_path / "mine.toml").write_text("[rules.mismatch-limit]\nabove = 0.25\n")
    done = driftline("watch", ended.id, "--rules", "mine.toml", "--exit-code", cwd=tmp_path)
    assert [line.split("at step ")[1].split(":")[0] for line in done.stdout.splitlines()] == ["26"]
    (tmp_path / "off.toml").write_text("[rules.mismatch-limit]\nenabled = false\n")
    done = driftline("watch", ended.id, "--rules", "off.toml", "--exit-code", cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("", 0)


def test_a_failed_run_is_a_failure(tmp_path: Path) -> None:
    run = create(tmp_path / "runs", "old")
    journal(run, [reported(1, 0.01), run_state("failed", 1)])
    assert driftline("watch", run.id, "--exit-code", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("watch", "--rules", "nowhere.toml"), 2, "nowhere.toml: cannot be read: No such file"),
        (("watch", "--on-alarm", "echo 'x"), 2, "--on-alarm: cannot be split into words"),
        (("watch", "--seconds", "0"), 2, "'0' is not a number above 0"),
        (("watch",), 3, "no live run"),
        (("watch", "ghost"), 3, "no run 'ghost'"),
        (("sentinels",), 2, "required: VERB"),
        (("sentinels", "check", "nowhere.toml"), 2, "nowhere.toml: cannot be read"),
        (("sentinels", "show", "--rules", "bad.toml"), 2, "bad.toml: rules.kl-spike.z: expected `float`, got `str`"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, args: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "bad.toml").write_text("[rules.kl-spike]\nz = 'high'\n")
    done = driftline(*args, cwd=tmp_path)
    assert said in sentence(done)
    assert (done.returncode, done.stdout) == (code, "")


def test_show_and_check(tmp_path: Path) -> None:
    shown = driftline("sentinels", "show", cwd=tmp_path)
    assert shown.returncode == 0
    assert re.search(r"^mismatch-limit +mismatch/abs_diff_mean above \.05, 2 of 3 steps$", shown.stdout, re.M)
    assert re.search(r"^mismatch-ratio +mismatch/ratio_mean above 2 or below \.5, 2 of 3 steps$", shown.stdout, re.M)
    on = len(load().rules)
    assert shown.stdout.count("source: ") == on
    rules = json.loads(driftline("sentinels", "show", "--json", cwd=tmp_path).stdout)
    assert rules["feed-stale"] == {
        "kind": "feed", "enabled": True, "level": "error", "seconds": 15.0, "source": rules["feed-stale"]["source"]
    }  # fmt: skip
    (tmp_path / "good.toml").write_text("[rules.clip-jump]\nenabled = false\n")
    checked = driftline("sentinels", "check", "good.toml", cwd=tmp_path)
    assert checked.stdout == f"good.toml: valid: {on - 1} rules on, 1 off, including the packaged ones\n"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path / "runs")
    made.start()
    yield made
    made.end()


WRITE = "import os, sys; open(sys.argv[1], 'a').write(os.environ['DRIFTLINE_ALARM_RULE'] + sys.argv[2] + '\\n')"


def test_a_live_run_is_followed_and_a_command_is_run(tmp_path: Path, hub: Hub) -> None:
    out, shown = tmp_path / "commands", tmp_path / "shown"
    probe = Probe("trainer", hub.run)
    probe.send(run_state("running", 1))
    for step in range(1, 6):
        probe.send(reported(step, 0.2))
    command = f'{sys.executable} -c "{WRITE}" {out}'
    env = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    with shown.open("w") as file:
        watch = subprocess.Popen(
            [sys.executable, "-P", "-m", "console.cli", "watch", str(hub.run.path), "--exit-code", "--bell",
             "--on-alarm", command],
            stdout=file, stderr=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
    try:
        until(lambda: "mismatch-limit at step 1:" in shown.read_text(), "the alarm that stands")
        until(lambda: out.exists() and "mismatch-limit at step 1:" in out.read_text(), "the command")
        for step in range(6, 12):
            probe.send(reported(step, 0.01))
        until(lambda: "; back at 0.01 at step 10" in shown.read_text(), "the end of the alarm")
        probe.send(run_state("finished", 11))
        _, complaint = watch.communicate(timeout=PATIENCE)
        assert (watch.returncode, complaint) == (7, ""), "no bell where there is no terminal"
        assert shown.read_text().count("\n") == 2
        assert out.read_text().count("\n") == 1, "once an episode"
    finally:
        watch.kill()
        watch.wait()
        probe.close(1.0)


@pytest.mark.parametrize(
    ("value", "options", "code"),
    [
        (0.2, ("--exit-code", "--once"), 7),
        (0.2, ("--exit-code", "--seconds", "3"), 7),
        (0.01, ("--exit-code", "--once"), 0),
        (0.01, ("--exit-code", "--seconds", "3"), 0),
        (0.2, ("--once",), 0),
    ],
)
@pytest.mark.slow
def test_the_exit_code_of_a_live_run_that_goes_on(
    tmp_path: Path, hub: Hub, value: float, options: tuple[str, ...], code: int
) -> None:
    """As CI asks: is anything wrong now, or within so many seconds? And only where it is asked for."""
    probe = Probe("trainer", hub.run)
    probe.send(run_state("running", 1))
    for step in range(1, 6):
        probe.send(reported(step, value))
    assert probe.flush(PATIENCE)
    done = driftline("watch", str(hub.run.path), *options, cwd=tmp_path)
    assert (done.returncode, "mismatch-limit" in done.stdout) == (code, value == 0.2), done.stdout + done.stderr
    probe.close(1.0)


def test_a_hub_that_hangs_is_not_a_run_without_alarms(tmp_path: Path, hub: Hub) -> None:
    """A gate in CI that asks it must not get the answer that all is well."""
    assert hub.process is not None
    os.kill(hub.process.pid, signal.SIGSTOP)
    try:
        done = driftline("watch", str(hub.run.path), "--exit-code", "--once", "--seconds", "3", cwd=tmp_path)
    finally:
        os.kill(hub.process.pid, signal.SIGCONT)
    assert (done.returncode, done.stdout) == (4, "")
    assert "waiting for its hub, no alarm is known until it answers" in done.stderr
    assert "could not be followed to its newest step within 3 s: its alarms are not known" in done.stderr
