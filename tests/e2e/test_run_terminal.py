"""`driftline run` on a terminal: the console opens over the run, and neither can take the other down.

A pty, the real console, the real hub; the trainer's process is a stand-in (tests/standin), for its life and death.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftline.rundir import list_runs
from tests import terminals

STANDIN = Path(__file__).parent.parent / "standin"
LIMIT = 90.0
ALTERNATE = b"\x1b[?1049h"
MAIN = b"\x1b[?1049l"


class Terminal:
    """A driftline command in a terminal of its own."""

    def __init__(self, folder: Path, manners: str, *args: str) -> None:
        self.folder = folder
        (folder / "run.toml").write_text("[run]\nname = 'seen'\nsteps = 5\n")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
        environment |= {
            "DRIFTLINE_RUNS": str(folder / "runs"),
            "PYTHONPATH": str(STANDIN),
            "STANDIN": manners,
            "STANDIN_PIDS": str(folder / "pids"),
            "TERM": "xterm-256color",
        }
        command = [sys.executable, "-P", "-m", "console.cli", *args]
        self.pid, self.fd, self.modes = terminals.fork(command, environment, folder=folder)
        self.seen = b""
        self.code: int | None = None

    def read(self, seconds: float = 0.05) -> None:
        if not select.select([self.fd], [], [], seconds)[0]:
            return
        with contextlib.suppress(OSError):  # EIO: the other side is closed
            self.seen += os.read(self.fd, 65_536)

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LIMIT
        while not condition():
            self.read()
            assert time.monotonic() < deadline, f"waited {LIMIT:.0f} s for: {what}\n{self.seen[-2000:]!r}"

    def until_seen(self, text: bytes, after: int = 0) -> None:
        self.until(lambda: text in self.seen[after:], repr(text))

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def send(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def console(self) -> psutil.Process:
        children = psutil.Process(self.pid).children()
        return next(child for child in children if "attach" in child.cmdline())

    def assert_as_before(self) -> None:
        assert self.seen.count(ALTERNATE) <= self.seen.count(MAIN), "still on the alternate screen"
        assert termios.tcgetattr(self.fd)[3] == self.modes[3], "the terminal's local modes were not put back"

    def assert_nothing_is_left(self) -> None:
        run = list_runs(self.folder / "runs")[0]
        pids = [*map(int, (self.folder / "pids").read_text().split()), run.connection().pid]
        self.until(lambda: not any(psutil.pid_exists(pid) for pid in pids), f"the end of {pids}")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(manners: str, *args: str) -> Terminal:
        made.append(Terminal(tmp_path, manners, *args))
        return made[-1]

    yield make
    for one in made:
        if not one.ended():
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(one.pid).children(recursive=True):
                    child.kill()
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        os.close(one.fd)


def test_q_leaves_the_console_and_ctrl_c_ends_the_run(terminal: Callable[..., Terminal]) -> None:
    one = terminal("forever", "run", "run.toml")
    one.until_seen(ALTERNATE)
    one.until_seen(b"reward")
    one.send(b"q")
    one.until_seen(b"goes on; the console again: driftline attach")
    after = len(one.seen)
    one.until_seen(b"reward", after)
    one.assert_as_before()
    one.send(b"\x03")
    one.until(one.ended, "the end of the run")
    assert one.code == 130
    one.assert_nothing_is_left()


def test_a_killed_console_changes_nothing_in_the_run(terminal: Callable[..., Terminal]) -> None:
    one = terminal("forever", "run", "run.toml")
    one.until_seen(ALTERNATE)
    one.until_seen(b"reward")
    one.console().kill()
    one.until_seen(b"goes on; the console again: driftline attach")
    one.assert_as_before()
    os.kill(one.pid, signal.SIGINT)
    one.until(one.ended, "the end of the run")
    assert one.code == 130
    one.assert_nothing_is_left()


def test_a_signal_under_the_console_puts_the_terminal_right(terminal: Callable[..., Terminal]) -> None:
    one = terminal("forever", "run", "run.toml")
    one.until_seen(ALTERNATE)
    one.until_seen(b"reward")
    os.kill(one.pid, signal.SIGTERM)
    one.until(one.ended, "the end of the run")
    one.read(0.2)
    assert one.code == 143
    assert one.seen.count(ALTERNATE) <= one.seen.count(MAIN)
    one.assert_nothing_is_left()


def test_a_run_that_fails_under_the_console_is_said_after_it(terminal: Callable[..., Terminal]) -> None:
    one = terminal("die", "run", "run.toml")
    one.until_seen(ALTERNATE)
    # The trainer cannot say so any more: the supervisor does, and the console behind the screen shows it.
    one.until_seen(b"FAILED")
    one.send(b"q")
    one.until(one.ended, "the end of the command")
    one.read(0.2)
    assert one.code == 1
    assert b"the trainer has died: ValueError: the stand-in has had enough" in one.seen.replace(b"\r\n", b"")
    one.assert_nothing_is_left()


def test_ctrl_c_before_the_console_opens(terminal: Callable[..., Terminal]) -> None:
    one = terminal("slow", "run", "run.toml")
    one.until_seen(b"starting nothing")
    one.send(b"\x03")
    one.until(one.ended, "the end of the run")
    assert one.code == 130
    assert ALTERNATE not in one.seen
    one.assert_nothing_is_left()


def test_the_demonstration_says_which_key_to_press(terminal: Callable[..., Terminal]) -> None:
    one = terminal("forever", "demo", "--config", "run.toml")
    one.until_seen(ALTERNATE)
    assert b"three keys bring the run home" in one.seen.partition(ALTERNATE)[0]
    one.until_seen(b"press A", after=one.seen.index(ALTERNATE))
    one.send(b"q")
    one.until_seen(b"goes on; the console again: driftline attach")
    one.send(b"\x03")
    one.until(one.ended, "the end of the run")
    one.read(0.2)
    assert one.code == 130
    assert b"before the switch" in one.seen
    assert b"snapshot: " in one.seen
    one.assert_nothing_is_left()
