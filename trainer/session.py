"""The run of one trainer process: what is started and ended, in which order, and how its state is published."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType

from driftline import Probe
from driftline.config import Config
from driftline.frames import Command, Level, RunState
from driftline.rundir import RunDir, RunError
from engine import EngineError, EnginePool
from engine.fixes import wanted_at_start
from engine.pool.reporting import report_to
from engine.types import engine_names
from trainer.control.command_thread import CommandThread
from trainer.control.deadline import by_monotonic
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import SyncDriver
from trainer.errors import TrainerError
from trainer.learn.models import dtype_name
from trainer.loop import Loop
from trainer.report import Reporter, Scalar
from trainer.setup import Setup, build

JOIN_S = 10.0
"""How long a command that was running may take to notice that the engines are gone."""
END_S = 45.0
"""How long the run's last words wait for a hub that its supervisor starts again: the longest back-off, and a start."""


class StartupStopped(KeyboardInterrupt):
    """The end was asked for while the run was starting. No Exception, so that no library mistakes it for a failure."""


class Signals:
    """SIGINT and SIGTERM: while the run starts they raise `StartupStopped`, in the loop they ask for its end."""

    def __init__(self) -> None:
        self.control: CommandThread | None = None
        self.closing = False
        self.received = ""
        """Name of the first signal that asked for the end, "" while none has."""
        self.install()

    def install(self) -> None:
        """Take the signals (again): Ray puts handlers of its own in place, under which a SIGTERM aborts the process."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.closing:
            return
        self.received = self.received or signal.Signals(number).name
        if self.control is None:
            self.closing = True
            raise StartupStopped
        self.control.stop()


class Inbox:
    """Commands for the trainer. A `stop` must not wait for engines that are still loading: it becomes a SIGTERM."""

    def __init__(self) -> None:
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.early_stops: list[str] = []
        self._lock = threading.Lock()
        self._open = False

    def put_command(self, command: Command) -> None:
        """Take a command, on the probe's thread; its deadline counts from now on by the monotonic clock."""
        with self._lock:
            if command.verb == "stop" and not self._open:
                self.early_stops.append(command.id)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self.commands.put(by_monotonic(command))

    def open(self) -> None:
        """From here on the queue is read."""
        with self._lock:
            self._open = True


class Session:
    """A run from its configuration to its last frame."""

    def __init__(self, config: Config, run: RunDir, *, steps: int, digest: str) -> None:
        """Raises RunError when the run directory cannot be used."""
        self._config = config
        self._run = run
        self._steps = steps
        self._digest = digest
        self._inbox = Inbox()
        self._connection, self._keys = report_to(run, engine_names(config.engine.count))
        self._probe = Probe("trainer", run, on_command=self._inbox.put_command)
        self._report = Reporter(self._probe, _first_state(config, run, steps, digest))
        self._pool: EnginePool | None = None
        self._control: CommandThread | None = None
        self._fixes: FixTracker | None = None
        self._loop: Loop | None = None
        self._signals: Signals | None = None

    def run(self, *, resume: bool, signals: Signals, on_progress: Callable[[str], None]) -> str:
        """Start, train, end. Returns the sentence of a failure, or "" for a run that reached its end or was stopped.

        A mistake of this program leaves as the exception it is, once everything started has been ended.
        """
        failure = ""
        self._signals = signals
        try:
            loop = self._loop = self._start(resume, signals, lambda text: self._progress(text, on_progress, signals))
            loop.run(self._steps)
            loop.save()
        except StartupStopped:
            pass
        except EngineError as error:
            failure = str(error)
            failure += self._save_what_is_there()
        except (TrainerError, RunError) as error:
            failure = str(error)
        except OSError as error:
            failure = f"{error.filename or self._run.path}: {error.strerror or error}"
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            signals.closing = True
            self._end(failure)
        return failure

    def _save_what_is_there(self) -> str:
        """The engines' end takes nothing from the trainer: its last step is kept. Returns a clause for the failure."""
        if self._loop is None:
            return ""
        try:
            self._loop.save()
        except OSError as error:
            return f"; its last checkpoint could not be written: {error.strerror or error}"
        return f"; the checkpoint of step {self._loop.step} is there to go on from"

    @property
    def abandoned(self) -> bool:
        """True where the end of the process must not wait for Ray, which has died."""
        return self._pool is not None and self._pool.abandoned

    @property
    def summary(self) -> str:
        """Progress of the run as a sentence."""
        step = self._report.run.step
        if step >= self._steps:
            return f"all {self._steps} steps done"
        text, signals = f"stopped after step {step} of {self._steps}", self._signals
        # A stop that was asked for while engines load comes as a signal of this process to itself.
        if signals is None or not signals.received or self._inbox.early_stops:
            return text
        return f"{text}, by {signals.received}"

    def _start(self, resume: bool, signals: Signals, on_progress: Callable[[str], None]) -> Loop:
        config, report = self._config, self._report
        setup = build(config, self._run, resume=resume, digest=self._digest, on_progress=on_progress)
        start = setup.start
        if start.step >= self._steps:
            raise TrainerError(f"the checkpoint is at step {start.step} of {self._steps} already; give more --steps")
        report.tokenizer = setup.tokenizer
        report.state(step=start.step, version=start.version)
        self._pool = self._start_pool(setup, on_progress)
        signals.install()
        self._fixes = FixTracker(
            self._pool.fix_states(),
            config.fixes,
            wanted_at_start(config.fixes),
            setup.head,
            report,
            version=start.version,
            step=start.step,
        )
        syncs = SyncDriver(self._pool, setup.store, report, self._fixes, setup.head, config.sync)
        commands, lease, value = self._inbox.commands, config.hub.pause_lease, config.correction.value
        self._control = CommandThread(commands, self._pool, syncs, self._fixes, report, lease=lease, correction=value)
        signals.control = self._control
        self._inbox.open()
        self._control.start()
        loop = Loop(config, self._run, setup, self._pool, syncs, self._control, self._fixes, report)
        report.state(status="running", detail="")
        report.event("run.started" if not start.step else "run.resumed", f"at step {start.step}", step=start.step)
        return loop

    def _start_pool(self, setup: Setup, on_progress: Callable[[str], None]) -> EnginePool:
        self._pool = EnginePool(
            self._config.engine,
            self._config.sampling,
            model=setup.model_path,
            dtype=dtype_name(setup.dtype),
            fixes=self._config.fixes,
            connection=self._connection,
            keys=self._keys,
            log_dir=self._run.logs,
            on_progress=on_progress,
            on_event=self._engine_event,
            shadow=self._config.shadow,
        )
        self._pool.start()
        return self._pool

    def _engine_event(self, kind: str, text: str, level: Level, data: Mapping[str, Scalar]) -> None:
        # On the pool's own thread, which must not wait for the pool.
        self._report.event(kind, text, level=level, step=self._report.run.step, **data)
        if self._control is not None:
            self._control.engine_event(kind, str(data.get("engine", "")))

    def _progress(self, text: str, on_progress: Callable[[str], None], signals: Signals) -> None:
        # Engines report progress from the moment Ray is up.
        signals.install()
        on_progress(text)
        self._report.state(detail=text)

    def _end(self, failure: str) -> None:
        report = self._report
        report.state(status="stopping", detail=failure)
        try:
            if self._control is not None:
                self._control.close()
            if self._fixes is not None:
                self._fixes.close()
            if self._pool is not None:
                self._pool.close()
            if self._control is not None:
                self._control.join(JOIN_S)
        finally:
            text, step = failure or self.summary, report.run.step
            for command in (*self._inbox.early_stops, *(self._control.stop_commands if self._control else ())):
                report.ack(command, "applied", text)
            status = "failed" if failure else "finished"
            report.event(f"run.{status}", text, level="error" if failure else "info", step=step)
            report.state(status=status, detail=text, paused_by="", lease_until=0.0)
            self._probe.close(END_S)


def _first_state(config: Config, run: RunDir, steps: int, digest: str) -> RunState:
    return RunState(
        run=run.id,
        status="starting",
        step=0,
        steps=steps,
        version=0,
        time=time.time(),
        objective=config.trainer.objective,
        model=config.model.path or "tiny Qwen2",
        temperature=config.sampling.temperature,
        config_digest=digest,
        correction=config.correction.value,
        correction_requested=config.correction.value,
        correction_by="config",
        shadow_share=config.shadow.share,
        shadow_by="config",
    )
