"""Reports alarms to a person or a program: the bell, a notification of the terminal (OSC 9), a command.

All three are off unless asked for. Bytes for a terminal are written by its owner (this module only makes them), because
bytes in the midst of an escape sequence of the screen would become a part of it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from console.process.command_words import words
from console.sentinels.alarm import Alarm
from driftline.text import sanitize

BELL: Final = "\a"
LONGEST: Final = 200
"""Characters of a notification; the limits of terminals are not documented."""
QUIET: Final = 5.0
"""Least seconds between two notifications: alarms in between are reported with the next one."""
REMIND: Final = 60.0
"""Seconds after which the bell is rung again while an alarm stands that was not acknowledged."""
COMMAND_SECONDS: Final = 10.0
"""Seconds that a command may take before it is killed."""
WAITING: Final = 20
"""Alarms that wait for a command that is still busy with another."""


class AlertError(ValueError):
    """A command that cannot be run; one sentence."""


class Alerts(msgspec.Struct, frozen=True):
    """Actions when an alarm is raised. `command` is an argument list, empty for none."""

    bell: bool = False
    notify: bool = False
    command: tuple[str, ...] = ()


def split(command: str) -> tuple[str, ...]:
    """The argument list of a command as it is typed; no shell is used. Raises AlertError."""
    try:
        return words(command)
    except ValueError as error:
        raise AlertError(f"--on-alarm: {error}") from error


def notification(alarms: Sequence[Alarm], run: str, environ: Mapping[str, str]) -> str:
    """OSC 9 with the first alarm's sentence and how many more there are, wrapped for the tmux it has to pass.

    tmux hands it on only where `allow-passthrough` is on (off by default since 3.3).
    """
    more = f" (and {len(alarms) - 1} more)" if len(alarms) > 1 else ""
    # Text that begins with a digit would be another command of OSC 9 in some terminals.
    text = sanitize(f"driftline {run}: {alarms[0].line}")[: LONGEST - len(more)] + more
    sequence = f"\x1b]9;{text}\a"
    if environ.get("TMUX") or environ.get("TERM", "").startswith("tmux"):
        return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return sequence


class Ringer:
    """Decides what to write to the terminal and when: pure but for the clock that it is given."""

    def __init__(self, alerts: Alerts, run: str, environ: Mapping[str, str] | None = None) -> None:
        self.alerts = alerts
        self._run = run
        self._environ = os.environ if environ is None else environ
        self._waiting: list[Alarm] = []
        self._wrote = float("-inf")
        self._rang = float("-inf")

    def output(self, raised: Sequence[Alarm], standing: Sequence[Alarm], now: float) -> str:
        """The bytes to write now, "" for none, for alarms raised since the last call and those that stand."""
        if not (self.alerts.bell or self.alerts.notify):
            return ""
        self._waiting += raised
        open_ = {alarm.number for alarm in standing if not alarm.acknowledged}
        text = ""
        if self._waiting and now - self._wrote >= QUIET:
            news = [alarm for alarm in self._waiting if alarm.number in open_]
            self._waiting = []
            if news:
                self._wrote = self._rang = now
                text = (BELL if self.alerts.bell else "") + (
                    notification(news, self._run, self._environ) if self.alerts.notify else ""
                )
        elif self.alerts.bell and open_ and now - self._rang >= REMIND:
            self._rang = now
            text = BELL
        return text


class Runner:
    """Runs a command for each alarm, one at a time, in a thread of its own; reports failures in one sentence.

    No shell: the arguments are as split once, with the alarm's sentence behind them, and its parts as
    `DRIFTLINE_ALARM_*` in the environment. Standard input and output are closed, so that it cannot touch the screen.
    """

    def __init__(
        self, command: Sequence[str], run: str, say: Callable[[str], None], *, limit: float = COMMAND_SECONDS
    ) -> None:
        self._command = tuple(command)
        self._run = run
        self._say = say
        self._limit = limit
        self._queue: queue.Queue[Alarm | None] = queue.Queue(WAITING)
        self._child: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="on-alarm", daemon=True)
        self._thread.start()

    def send(self, alarms: Sequence[Alarm]) -> None:
        """Queue the command for each alarm; never blocks."""
        for alarm in alarms:
            try:
                self._queue.put_nowait(alarm)
            except queue.Full:
                self._say(f"--on-alarm: still busy; not run for {alarm.rule}")

    def close(self, grace: float = 1.0) -> None:
        """Run the commands of the alarms sent before, for `grace` seconds, then end the one that is running."""
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(grace)
        self._closed = True
        if self._thread.is_alive() and self._child is not None:
            _kill(self._child)
            self._thread.join(1.0)

    def _work(self) -> None:
        while not self._closed and (alarm := self._queue.get()) is not None:
            complaint = self._once(alarm)
            if complaint and not self._closed:
                self._say(f"--on-alarm: {self._command[0]}: {complaint}")

    def _once(self, alarm: Alarm) -> str:
        """Run the command; returns its failure as a clause, "" for none."""
        try:
            child = subprocess.Popen(
                [*self._command, sanitize(alarm.line)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **environment(alarm, self._run)},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        self._child = child
        try:
            code = child.wait(self._limit)
        except subprocess.TimeoutExpired:
            _kill(child)
            return f"killed after {self._limit:.0f} s"
        finally:
            self._child = None
        return f"ended with exit code {code}" if code else ""


def environment(alarm: Alarm, run: str) -> dict[str, str]:
    """The alarm as environment variables of a command."""
    parts = {
        "RUN": run,
        "RULE": alarm.rule,
        "STATE": alarm.state,
        "LEVEL": alarm.level,
        "SUBJECT": alarm.subject,
        "STEP": str(alarm.step),
        "VALUE": repr(alarm.value),
        "LIMIT": repr(alarm.limit),
        "TEXT": alarm.text,
        "TIME": repr(alarm.time),
    }
    return {f"DRIFTLINE_ALARM_{name}": sanitize(value) for name, value in parts.items()}


def _kill(child: subprocess.Popen[bytes]) -> None:
    # Its session, with every process that it has started.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
