"""Starts a run's processes, watches them, and leaves none behind.

Hub and trainer are processes in sessions of their own: a ctrl-C on the terminal reaches this supervisor alone, which
ends them in order (trainer first, then its remaining descendants, then the hub that has to record their last frames).
Should the supervisor itself be killed, it depends on how the run was started. In the foreground the kernel signals the
trainer (see die_with_parent.py), which ends in order, and the hub sees that its parent is gone. A detached run goes on:
a standby takes the lock over (standby.py), finds hub and trainer again, and is the supervisor from then on. Start
children from the main thread only.

A run never ends because its hub has died: in every phase the hub is started again, with pauses that grow
(console/launch/restarts.py), and meanwhile the run goes on without it. Producers hold their frames until it is back.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from msgspec.structs import replace

from console.errors import FAILED, USAGE, CommandError
from console.launch import children
from console.launch import standby as standby_script
from console.launch.children import Child, Found
from console.launch.helper import Helper
from console.launch.hub_care import HubCare
from console.launch.last_words import OF_SUPERVISOR, last_words
from console.launch.restarts import COMPACTION, HUB, STANDBY, Backoff
from console.process import tree as processes
from driftline import supervision
from driftline.config import HubConfig
from driftline.keys import SUPERVISOR
from driftline.producer.probe import Probe
from driftline.rundir import RunDir, RunError
from driftline.supervision import Supervision

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
        record: Supervision | None = None,
        lock: int = -1,
    ):
        """`say` is called with the reason of a long wait; `hurried`: True cuts grace times short (a second ctrl-C).

        A detached run's supervisor comes with the `lock` that it holds and the `record` that it goes on with.
        """
        self.run = run
        self._say = say
        self._hurried = hurried
        self._children: dict[str, Child] = {}
        self._hub = HubCare(
            run,
            hub_backoff,
            start=lambda command: self.start("hub", command, dies_with_parent=False),
            last_words=lambda code: last_words(code, self.log("hub")),
            report=self.report,
        )
        # Descendants from before the run belong to other code of this process.
        self._before = {process.pid for process in processes.descendants()}
        self._adopted = processes.adopts_orphans()
        self._adopts = processes.adopt_orphans()
        self._stopped = self._compacts = False
        self._compaction = Helper(compaction_backoff, self._start_compaction, self._compaction_died)
        self._standby = Helper(STANDBY, self._start_standby, self._standby_died)
        self._probe: Probe | None = None
        self._lock = lock
        self._record = record or Supervision(pid=os.getpid(), host=socket.gethostname(), started=time.time())
        self._recorded: tuple[int, bool, bool] | None = None
        self._standby_command: Sequence[str] = ()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def detached(self) -> bool:
        """True where the run outlives this process."""
        return self._record.detached

    def start_hub(
        self,
        hub: HubConfig = HubConfig(),  # noqa: B008  it is frozen
        *,
        synthetic: bool = False,
        cancelled: Callable[[], bool],
    ) -> bool:
        """Start the hub and wait until it is up. False if `cancelled` became true meanwhile. Raises CommandError.

        One that is killed or hangs meanwhile is started again; one that ends by itself has a reason that the operator
        must hear. With `hub.compact`, the compaction of its closed segments to Parquet is started beside it, at the
        lowest priority.
        """
        self._take_lock()
        self._hub.begin(self._hub_command(hub, synthetic=synthetic))
        while not self._hub.up():
            code = self.poll("hub")
            if code is not None and code > 0 and self._hub.away is None:
                # Exit codes of the hub are those of the command line: 2 for an interface that it may not listen on.
                raise CommandError(
                    f"the hub did not start: {self.last_words('hub')}", USAGE if code == USAGE else FAILED
                )
            if news := self.keep_hub():
                self._say(news)
            if cancelled():
                return False
            time.sleep(TICK)
        self._compacts = hub.compact
        if hub.compact:
            self._start_compaction()
        return True

    def take_over(self, hub: HubConfig) -> bool:
        """Go on with the hub and the trainer that another supervisor has left. False if it had started no trainer yet.

        What has died meanwhile counts as having died just now.
        """
        command, now = self._hub_command(hub, synthetic=False), time.time()
        self._hub.carry(now - death for death in self._record.hub_died_at)
        self._hub.begin(command, Found(children.find(self.run, "hub")))
        self._children["hub"] = self._hub.child or Found(None)
        self._compacts = hub.compact
        if hub.compact:
            self._start_compaction()
        self._write_record()
        trainer = children.find(self.run, "trainer")
        if trainer is None and not self._record.trainer:
            return False
        self._children["trainer"] = Found(trainer)
        text = f"process {self._record.pid} looks after the run from now on: its supervisor was gone"
        self.report("supervisor.replaced", text)
        return True

    def keep_standby(self, command: Sequence[str]) -> None:
        """Have a process ready from now on that takes over by this command, with the lock, when this one is killed."""
        self._standby_command = [
            sys.executable, "-I", "-S", standby_script.__file__, str(self.run.supervisor_lock), *command,
        ]  # fmt: skip
        self._start_standby()

    def _start_standby(self) -> None:
        with open(self.log("supervisor"), "ab") as log:
            self._children["standby"] = subprocess.Popen(
                self._standby_command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _hub_command(self, hub: HubConfig, *, synthetic: bool) -> list[str]:
        command = [sys.executable, "-P", "-m", "driftline.hub", str(self.run.path), "--bind", hub.bind]
        command += ["--keep-gb", str(hub.keep_gb), "--keep-hours", str(hub.keep_hours)]
        command += ["--keep-until-compacted"] if hub.compact else []
        # No signal from the kernel: the hub watches the parent itself, and outlives it until the trainer's last frames
        # are recorded.
        return [*command, "--parent-pid", str(os.getpid()), *(["--synthetic"] if synthetic else [])]

    def _take_lock(self) -> None:
        if self._lock < 0:
            try:
                self._lock = supervision.take(self.run)
            except RunError as error:
                raise CommandError(str(error), FAILED) from error
        self._write_record()

    def _write_record(self) -> None:
        away, due, now = self._hub.away, self._hub.next_start, time.time()
        state, trainer = (self._hub.deaths, away is None, due is None), self._record.trainer
        trainer = trainer or "trainer" in self._children
        if self._lock < 0 or (state == self._recorded and trainer == self._record.trainer):
            return
        died_at = tuple(now - age for age in self._hub.ages)
        self._record = replace(
            self._record,
            trainer=trainer,
            hub_deaths=self._hub.deaths,
            hub_window=self._hub.window,
            hub_died=died_at[-1] if died_at else 0.0,
            hub_died_at=died_at[-supervision.DEATHS_KEPT :],
            hub_away=0.0 if away is None else now - away,
            hub_next=0.0 if due is None else now + due,
        )
        # A disk that is full now may not be so at the next change.
        with contextlib.suppress(OSError):
            supervision.write(self.run, self._record)
            self._recorded = state

    def _start_compaction(self) -> None:
        self.start("compact", [sys.executable, "-P", "-m", "console.recorded.compaction.compact", str(self.run.path)])

    def _compaction_died(self, again: str) -> None:
        # Nothing is lost with it: the next one goes on with the segments that have no tables yet.
        text = f"the journal's compaction has died, starts again {again}: {self.last_words('compact')}"
        self.report("compact.died", text)

    def _standby_died(self, again: str) -> None:
        self.report("standby.died", f"the standby of the supervisor has died, starts again {again}")

    def report(self, kind: str, text: str) -> None:
        """An event of the run, which it gets once there is a hub, and a line of the trainer's log."""
        if self._probe is None:
            self._probe = Probe(SUPERVISOR, self.run, keys=SUPERVISOR)
        self._probe.event(kind, text, "warn")
        if "trainer" in self._children:
            # Who reads why a run has held its breath reads there; both processes append whole lines.
            with contextlib.suppress(OSError), open(self.log("trainer"), "a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}{OF_SUPERVISOR}{kind}: {text}\n")

    def hub_up(self) -> bool:
        """True while the hub of this run lives and has bound its sockets."""
        return self._hub.up()

    def start_trainer(self, *, steps: int | None = None, resume: bool = False) -> None:
        """Start the trainer on the run's own configuration. That of a detached run outlives this process."""
        command = [sys.executable, "-P", "-m", "trainer", "--run-dir", str(self.run.path)]
        command += ["--steps", str(steps)] if steps is not None else []
        command += ["--resume"] if resume else []
        self.start("trainer", command, dies_with_parent=not self.detached)
        self._write_record()

    def start(self, name: str, command: Sequence[str], *, dies_with_parent: bool = True) -> subprocess.Popen[bytes]:
        """Start a process of the run under a name; its output goes to `logs/<name>.log`. Raises OSError."""
        child = children.start(self.run, name, command, dies_with_parent=dies_with_parent)
        self._children[name] = child
        return child

    def poll(self, name: str) -> int | None:
        """Exit code of a process of the run, None while it lives. Negative: killed by that signal.

        `last_words.UNKNOWN` for one that another supervisor had started.
        """
        child = self._children.get(name)
        return None if child is None else child.poll()

    def keep_hub(self) -> str:
        """Start a hub that has died or hangs again, after a pause that grows with its deaths, and the helpers too.

        Call this often, in every phase. Producers and consoles reconnect by themselves. Each death and each return is
        an event of the run, and a sentence that is returned; "" when nothing is new. Never raises because of the hub.
        """
        if self._compacts and not self._stopped:
            self._compaction.turn(self.poll("compact"))
        if self._standby_command:
            self._standby.turn(self.poll("standby"))
        news = self._hub.turn()
        self._write_record()
        return news

    def log(self, name: str) -> Path:
        """Path of the log of a process of the run."""
        return self.run.logs / f"{name}.log"

    def last_words(self, name: str) -> str:
        """A clause on the end of a dead process: signal or exit code, the error it wrote, its log."""
        return last_words(self.poll(name), self.log(name))

    def clear(self, spare: Sequence[int]) -> None:
        """End the processes that a dead trainer left behind; the hub and the processes in `spare` go on."""
        others = [child.pid for name, child in self._children.items() if name != "trainer"]
        self._sweep([*spare, *others])

    def stop(self) -> None:
        """End trainer, its descendants and the hub, in this order. Safe to call again.

        A hub that dies meanwhile is started again, for the last frames of the trainer.
        """
        if self._stopped:
            return
        self._stopped = True
        for name, child in list(self._children.items()):
            if name not in ("hub", "standby"):
                self._end(name, child, TRAINER_GRACE)
        hub = self._children.pop("hub", None)
        self._hub.child = None
        self._sweep([hub.pid] if hub is not None else [])
        if self._probe is not None:
            self._probe.close()
        if hub is not None:
            self._end("hub", hub, HUB_GRACE)
            self._sweep([])
        self._hub.close()
        self._end_standby()
        if self._adopts:
            processes.adopt_orphans(self._adopted)
        self._release()
        if self._compacts and not self._hurried():
            self._compact_rest()

    def _end_standby(self) -> None:
        self._standby_command = ()
        child = self._children.pop("standby", None)
        if child is not None and child.poll() is None:
            # It has nothing to save, and must not take over what ends in order.
            child.kill()
            child.wait()

    def _release(self) -> None:
        if self._lock < 0:
            return
        # The record goes before the lock: a run without it has not lost its supervisor.
        with contextlib.suppress(OSError):
            self.run.supervisor_file.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1

    def _compact_rest(self) -> None:
        """The last segment is closed only once its hub has gone."""
        from console.recorded.compaction.compact import CompactError, compact

        try:
            for note in compact(self.run):
                self._say(f"compacting the journal: segment {note.segment}")
        except CompactError as error:
            again = f"try again: driftline compact --run {shlex.quote(str(self.run.path))}"
            print(f"driftline: {error}; {again}", file=sys.stderr, flush=True)

    def _end(self, name: str, child: Child, grace: float) -> None:
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
        # Orphans are descendants of this process only with adoption, and where it is the supervisor from the start; the
        # others are found by their environment.
        if standby := self._children.get("standby"):
            spared = [*spared, standby.pid]
        mine = processes.descendants(without=spared)
        cut = {os.getpid(), *spared, *(process.pid for pid in spared for process in processes.descendants(pid))}
        # A hub for a trainer that is another's has none to end.
        family = children.of_run(self.run) if self._record.trainer else []
        marked = [process for process in family if process.pid not in cut]
        left = [process for process in dict.fromkeys([*mine, *marked]) if process.pid not in self._before]
        if left:
            self._say(f"ending {len(left)} processes that the trainer left")
            processes.end(left, 0.0 if self._hurried() else TREE_GRACE)
        if self._adopts:
            processes.reap([*spared, *(child.pid for child in self._children.values())])
