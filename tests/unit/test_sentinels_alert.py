"""Bell, OSC 9 and command: what is written, when, and that a command can do no harm to the console."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec
import pytest

from console.sentinels.alarm import Alarm
from console.sentinels.notify import LONGEST, QUIET, REMIND, AlertError, Alerts, Ringer, Runner, notification, split
from tests.unit.hubs import until

PLAIN = {"TERM": "xterm-256color"}


def alarm(number: int = 1, rule: str = "kl-spike", text: str = "KL 0.5, above 0.1") -> Alarm:
    return Alarm(number=number, rule=rule, level="error", subject="policy/kl_new_old", step=812, value=0.5, limit=0.1,
                 text=text, time=1.0)  # fmt: skip


def test_a_notification_is_one_clean_sequence():
    hostile = "x\x1b]0;owned\x07\x9b2J\u202e" + "y" * 500
    text = notification([alarm(text=hostile), alarm(2), alarm(3)], "demo-7f3a", PLAIN)
    assert text.startswith("\x1b]9;driftline demo-7f3a: kl-spike at step 812: x]0;owned2J")
    assert text.endswith(" (and 2 more)\a")
    body = text[len("\x1b]9;") : -1]
    assert all(character.isprintable() for character in body)
    assert len(body) <= LONGEST


@pytest.mark.parametrize("environ", [{"TMUX": "/tmp/s,1,0", "TERM": "screen-256color"}, {"TERM": "tmux-256color"}])
def test_inside_tmux_it_is_wrapped_to_pass_through(environ: dict[str, str]):
    text = notification([alarm()], "r", environ)
    assert text.startswith("\x1bPtmux;\x1b\x1b]9;driftline r: ")
    assert text.endswith("\a\x1b\\")


def test_nothing_is_written_unless_asked_for():
    ringer = Ringer(Alerts(), "r", PLAIN)
    assert ringer.output([alarm()], [alarm()], 0.0) == ""
    assert ringer.output([], [alarm()], 10 * REMIND) == ""


def test_the_bell_rings_once_reminds_and_stops_when_acknowledged():
    ringer = Ringer(Alerts(bell=True), "r", PLAIN)
    standing = [alarm()]
    assert ringer.output(standing, standing, 100.0) == "\a"
    assert ringer.output([], standing, 101.0) == ""
    assert ringer.output([], standing, 100.0 + REMIND) == "\a"
    seen = [msgspec.structs.replace(standing[0], acknowledged=True)]
    assert ringer.output([], seen, 100.0 + 3 * REMIND) == ""
    assert ringer.output([], [], 100.0 + 4 * REMIND) == ""


def test_a_storm_is_one_notification():
    ringer = Ringer(Alerts(notify=True), "r", PLAIN)
    alarms = [alarm(i) for i in range(1, 5)]
    assert ringer.output(alarms[:1], alarms[:1], 0.0) != ""
    assert ringer.output(alarms[1:3], alarms[:3], 0.5) == ""
    assert ringer.output(alarms[3:], alarms, 1.0) == ""
    assert "(and 2 more)" in ringer.output([], alarms, QUIET)
    assert ringer.output([], alarms, 10 * REMIND) == "", "only the bell reminds"


def test_a_command_is_split_once_and_sees_no_shell():
    assert split("notify-send -u critical 'a run; rm -rf $HOME'") == (
        "notify-send", "-u", "critical", "a run; rm -rf $HOME",
    )  # fmt: skip
    with pytest.raises(AlertError, match="--on-alarm: cannot be split into words: no closing quotation"):
        split("echo 'x")
    with pytest.raises(AlertError, match="--on-alarm: is empty"):
        split("  ")


WRITE = """
import os, sys
with open(sys.argv[1], "a") as file:
    names = ("RUN", "RULE", "STATE", "LEVEL", "SUBJECT", "STEP", "VALUE", "LIMIT")
    print(*(os.environ["DRIFTLINE_ALARM_" + name] for name in names), sys.argv[2], sep="|", file=file)
"""


def test_a_command_gets_the_alarm_as_argument_and_environment(tmp_path: Path):
    out, said = tmp_path / "out", []
    runner = Runner([sys.executable, "-c", WRITE, str(out)], "demo", said.append)
    runner.send([alarm(1), alarm(2, rule="kl-limit", text="$(touch x) `id`")])
    until(lambda: out.exists() and out.read_text().count("\n") == 2, "both commands to have run")
    runner.close()
    first, second = out.read_text().splitlines()
    assert first == ("demo|kl-spike|raised|error|policy/kl_new_old|812|0.5|0.1|kl-spike at step 812: KL 0.5, above 0.1")
    assert second.endswith("kl-limit at step 812: $(touch x) `id`")
    assert said == []


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/at-all"], "--on-alarm: /nowhere/at-all: no such file or directory"),
        ([sys.executable, "-c", "raise SystemExit(3)"], f"--on-alarm: {sys.executable}: ended with exit code 3"),
    ],
)
def test_a_command_that_fails_is_one_sentence(command: list[str], said: str):
    heard: list[str] = []
    runner = Runner(command, "r", heard.append)
    runner.send([alarm()])
    until(lambda: heard, "the complaint")
    runner.close()
    assert heard == [said]


SLEEP = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1], "a") as file:
    print(os.getpid(), child.pid, file=file)
time.sleep(600)
"""


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A child of a child that was killed waits for the process that reaps orphans here.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path):
    out, heard = tmp_path / "out", []
    runner = Runner([sys.executable, "-c", SLEEP, str(out)], "r", heard.append, limit=2.0)
    runner.send([alarm()])
    until(lambda: heard, "the complaint")
    runner.close()
    assert heard[0].endswith("killed after 2 s")
    pids = [int(word) for word in out.read_text().split()]
    assert len(pids) == 2
    until(lambda: all(map(gone, pids)), "both to be gone")


def test_alarms_never_wait_for_a_command_and_closing_ends_it(tmp_path: Path):
    out, heard = tmp_path / "out", []
    runner = Runner([sys.executable, "-c", SLEEP, str(out)], "r", heard.append, limit=600.0)
    started = time.monotonic()
    runner.send([alarm(i) for i in range(60)])
    assert time.monotonic() - started < 5.0, "sending blocks on a command that takes minutes"
    assert heard, "what cannot wait is said"
    assert set(heard) == {"--on-alarm: still busy; not run for kl-spike"}
    until(out.exists, "the first to run")
    until(lambda: out.read_text().strip(), "its words")
    runner.close(grace=0.1)
    until(lambda: all(gone(int(word)) for word in out.read_text().split()), "it to be gone")
    assert out.read_text().count("\n") == 1, "one at a time"
