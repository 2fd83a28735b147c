"""Starts a run's processes, watches them, and leaves none behind.

Hub and trainer are processes in sessions of their own: a ctrl-C on the terminal reaches this supervisor alone, which
ends them in order (trainer first, then its remaining descendants, then the hub that has to record their last frames).
Should the supervisor itself be killed, the kernel signals the trainer (see die_with_parent.py), and the hub sees that
its parent is gone. Start children from the main thread only.

A run never ends because its hub has died: in every phase the hub is started again, with pauses that grow
(console/launch/restarts.py), and meanwhile the run goes on without it. Producers hold their frames until it is back.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from console.errors import FAILED, USAGE, CommandError
from console.launch.restarts import COMPACTION, HUB, Backoff, Restarts
from console.process import die_with_parent
from console.process import tree as processes
from driftline.config import HubConfig
from driftline.keys import SUPERVISOR
from driftline.producer.probe import Probe
from driftline.rundir import RUN_VARIABLE, RunDir, RunError

HUB_START: Final = 30.0
"""Seconds for the hub to bind its sockets."""
TRAINER_GRACE: Final = 90.0
"""Seconds for the trainer to end in order: it finishes its step, writes a checkpoint, shuts vLLM and Ray down."""
TREE_GRACE: Final = 5.0
"""Seconds for the processes that a dead trainer left behind to end."""
HUB_GRACE: Final = 10.0
"""Seconds for the hub to write what it has received."""
SILENT: Final = 0.5
"""Seconds of waiting for a process to end before that is reported."""
TICK: Final = 0.05

Say = Callable[[str], None]


class Supervisor:
    """The processes of one run. A context manager: leaving it ends everything it started."""

    def __init__(
        self,
        run: RunDir,
        *,
        say: Say = lambda _text: None,
        hurried: Callable[[], bool] = lambda: False,
        hub_backoff: Backoff = HUB,
        compaction_backoff: Backoff = COMPACTION,
    ):
        """`say` is called with the reason of a long wait; `hurried`: True cuts grace times short (a second ctrl-C)."""
        self.run = run
        self._say = say
        self._hurried = hurried
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._hub_command: list[str] = []
        self._hub_restarts = Restarts(hub_backoff)
        self._hub_away_since: float | None = None
        # Descendants from before the run belong to other code of this process.
        self._before = {process.pid for process in processes.descendants()}
        self._adopted = processes.adopts_orphans()
        self._adopts = processes.adopt_orphans()
        self._stopped = self._compacts = False
        self._compaction_restarts = Restarts(compaction_backoff)
        self._probe: Probe | None = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start_hub(
        self,
        hub: HubConfig = HubConfig(),  # noqa: B008  it is frozen
        *,
        synthetic: bool = False,
        cancelled: Callable[[], bool],
    ) -> bool:
        """Start the hub and wait until it is up. False if `cancelled` became true meanwhile. Raises CommandError.

        With `hub.compact`, the compaction of its closed segments to Parquet is started beside it, at the lowest
        priority.
        """
        command = [sys.executable, "-P", "-m", "driftline.hub", str(self.run.path), "--bind", hub.bind]
        command += ["--keep-gb", str(hub.keep_gb), "--keep-hours", str(hub.keep_hours)]
        command += ["--keep-until-compacted"] if hub.compact else []
        command += ["--parent-pid", str(os.getpid()), *(["--synthetic"] if synthetic else [])]
        self._hub_command = command
        # Without a signal from the kernel: the hub watches the parent itself, and outlives it until the trainer's last
        # frames are recorded.
        process = self.start("hub", command, dies_with_parent=False)
        deadline = time.monotonic() + HUB_START
        while not self.hub_up():
            if process.poll() is not None:
                # Exit codes of the hub are those of the command line: 2 for an interface that it may not listen on.
                code = USAGE if process.returncode == USAGE else FAILED
                raise CommandError(f"the hub did not start: {self.last_words('hub')}", code)
            if time.monotonic() > deadline:
                raise CommandError(f"the hub did not come up within {HUB_START:.0f} s; see {self.log('hub')}")
            if cancelled():
                return False
            time.sleep(TICK)
        self._compacts = hub.compact
        if hub.compact:
            self._start_compaction()
        return True

    def _start_compaction(self) -> None:
        self.start("compact", [sys.executable, "-P", "-m", "console.recorded.compaction.compact", str(self.run.path)])

    def keep_compaction(self) -> None:
        """Start a compaction that has died again, after a pause that grows, and report it as an event of the run.

        Nothing is lost with it: the next one goes on with the segments that have no tables yet.
        """
        if not self._compacts or self._stopped or self.poll("compact") is None:
            return
        again = self._compaction_restarts
        if not again.waiting:
            pause = again.died(time.monotonic())
            words = self.last_words("compact")
            self._event("compact.died", f"the journal's compaction has died, starts again {again.text(pause)}: {words}")
        elif again.due(time.monotonic()):
            again.started()
            # What keeps a process from being started (no memory, no descriptors) may pass; the dead one counts again.
            with contextlib.suppress(OSError):
                self._start_compaction()

    def _event(self, kind: str, text: str) -> None:
        if self._probe is None:
            self._probe = Probe(SUPERVISOR, self.run, keys=SUPERVISOR)
        self._probe.event(kind, text, "warn")

    def hub_up(self) -> bool:
        """True while the hub of this run lives and has bound its sockets."""
        # The connection file may be one of an earlier hub on this directory, even damaged or of another version: only
        # the pid says which hub wrote it.
        hub = self._children.get("hub")
        if hub is None or hub.poll() is not None:
            return False
        try:
            live = self.run.live() and self.run.connection_file.exists()
            return live and self.run.connection().pid == hub.pid
        except RunError:  # no locks here, or an unreadable connection: the hub itself says so
            return False

    def start_trainer(self, *, steps: int | None = None, resume: bool = False) -> None:
        """Start the trainer on the run's own configuration."""
        command = [sys.executable, "-P", "-m", "trainer", "--run-dir", str(self.run.path)]
        command += ["--steps", str(steps)] if steps is not None else []
        command += ["--resume"] if resume else []
        self.start("trainer", command)

    def start(self, name: str, command: Sequence[str], *, dies_with_parent: bool = True) -> subprocess.Popen[bytes]:
        """Start a process of the run under a name; its output goes to `logs/<name>.log`."""
        wrapper = [
            sys.executable,
            "-I",
            "-S",
            die_with_parent.__file__,
            str(os.getpid()),
            str(int(signal.SIGTERM)),
        ]
        environment = os.environ | {RUN_VARIABLE: str(self.run.path), "PYTHONUNBUFFERED": "1"}
        with open(self.log(name), "ab") as log:
            child = subprocess.Popen(
                [*(wrapper if dies_with_parent else []), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        self._children[name] = child
        return child

    def poll(self, name: str) -> int | None:
        """Exit code of a process of the run, None while it lives. Negative: killed by that signal."""
        child = self._children.get(name)
        return None if child is None else child.poll()

    def keep_hub(self) -> str:
        """Start a hub that has died again, after a pause that grows with its deaths; call this often, in every phase.

        Producers and consoles reconnect by themselves. Each death and each return is an event of the run, which it
        gets once there is a hub, and a sentence that is returned; "" when nothing is new. Never raises because of the
        hub. Also starts the compaction again if it has died.
        """
        self.keep_compaction()
        if self.poll("hub") is None:
            return self._hub_back()
        now = time.monotonic()
        again, news = self._hub_restarts, ""
        if not again.waiting:
            if self._hub_away_since is None:
                self._hub_away_since = now
            pause = again.died(now)
            words = self.last_words("hub")
            news = f"the hub has died and is started again {again.text(pause)}; the run goes on without it: {words}"
            self._event("hub.died", news)
        if again.due(now):
            again.started()
            try:
                self.start("hub", self._hub_command, dies_with_parent=False)
            except OSError as error:
                # The dead hub stays the newest one, and so its next start is due after a longer pause.
                news = f"{news}; " if news else ""
                news += f"the hub cannot be started: {error}"
        return news

    def _hub_back(self) -> str:
        """A sentence when a hub that was started again is up, else ""."""
        if self._hub_away_since is None or not self.hub_up():
            return ""
        seconds = time.monotonic() - self._hub_away_since
        self._hub_away_since = None
        news = f"the hub is back after {seconds:.1f} s; frames that producers held meanwhile follow"
        self._event("hub.back", news)
        return news

    def log(self, name: str) -> Path:
        """Path of the log of a process of the run."""
        return self.run.logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        """A clause on the end of a dead process: signal or exit code, the error it wrote, its log."""
        code = self.poll(name)
        how = f"killed by {_signal_name(-code)}" if code is not None and code < 0 else f"exit code {code}"
        error = last_error(self.log(name))
        where = f"{how}; log: {self.log(name)}"
        return f"{error} ({where})" if error else where

    def clear(self, spare: Sequence[int]) -> None:
        """End the processes that a dead trainer left behind; the hub and the processes in `spare` go on."""
        hub = self._children.get("hub")
        self._sweep([*spare, *([hub.pid] if hub is not None else [])])

    def stop(self) -> None:
        """End trainer, its descendants and the hub, in this order. Safe to call again.

        A hub that dies meanwhile is started again, for the last frames of the trainer.
        """
        if self._stopped:
            return
        self._stopped = True
        for name, child in list(self._children.items()):
            if name != "hub":
                self._end(name, child, TRAINER_GRACE)
        hub = self._children.pop("hub", None)
        self._sweep([hub.pid] if hub is not None else [])
        if self._probe is not None:
            self._probe.close()
        if hub is not None:
            self._end("hub", hub, HUB_GRACE)
            self._sweep([])
        if self._adopts:
            processes.adopt_orphans(self._adopted)
        if self._compacts and not self._hurried():
            self._compact_rest()

    def _compact_rest(self) -> None:
        """The last segment is closed only once its hub has gone."""
        from console.recorded.compaction.compact import CompactError, compact

        try:
            for note in compact(self.run):
                self._say(f"compacting the journal: segment {note.segment}")
        except CompactError as error:
            again = f"try again: driftline compact --run {shlex.quote(str(self.run.path))}"
            print(f"driftline: {error}; {again}", file=sys.stderr, flush=True)

    def _end(self, name: str, child: subprocess.Popen[bytes], grace: float) -> None:
        if child.poll() is None:
            child.terminate()
        started = time.monotonic()
        while child.poll() is None and time.monotonic() < started + grace and not self._hurried():
            if time.monotonic() > started + SILENT:
                self._say(f"ending the {name} (at most {grace:.0f} s; ctrl-C again ends it at once)")
            if news := self.keep_hub():
                self._say(news)
            time.sleep(TICK)
        if child.poll() is None:
            # Its descendants are listed before it is killed: afterwards only adopted ones could still be found.
            tree = processes.descendants(child.pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            processes.end(tree, 0.0)

    def _sweep(self, spared: Sequence[int]) -> None:
        # Only with adoption do orphans stay descendants of this process; without it `_end` has ended those it could
        # find.
        left = [process for process in processes.descendants(without=spared) if process.pid not in self._before]
        if left:
            self._say(f"ending {len(left)} processes that the trainer left")
            processes.end(left, 0.0 if self._hurried() else TREE_GRACE)
        if self._adopts:
            processes.reap([*spared, *(child.pid for child in self._children.values())])


_ERROR_LINE: Final = re.compile(
    r"driftline(?: \w+)?: .+|trainer: .+|[\w.]*(?:Error|Exception)\b.*|.*\b(?:ERROR|FATAL|CRITICAL)\b.*"
)


_DEBUG_OR_INFO: Final = re.compile(r"\b(?:DEBUG|INFO)\b")

_PREFIX: Final = re.compile(r"^(?:driftline(?: \w+)?|trainer): ")


def last_error(log: Path, reach: int = 65_536) -> str:
    """The last line of a log that looks like an error, else its last one that is not a DEBUG or INFO line, else "".

    At most 300 characters. The last report of a process that was killed is not the reason of its end.
    """
    try:
        with open(log, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - reach))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    except OSError:
        return ""
    errors = [line for line in lines if _ERROR_LINE.fullmatch(line)]
    others = [line for line in lines if not _DEBUG_OR_INFO.search(line)]
    return _PREFIX.sub("", (errors or others or [""])[-1])[:300]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
