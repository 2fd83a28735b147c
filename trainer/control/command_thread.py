"""The command thread: it accepts operators' commands at once, whatever the loop is doing.

Pauses, resumptions, stops and marks are carried out here, without a lock that anything slow may hold; fix changes and
syncs go to `trainer.control.command_queue`. The loop meets it only at `wait_while_paused()` (in the middle of a step),
at `between_steps()` (where commands may be waiting for the loop) and at `stopping`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from driftline import clocks
from driftline.catalog import shadow
from driftline.catalog.corrections import OFF
from driftline.frames import Command
from engine import EngineError, EnginePool
from trainer.control.command_queue import ENDED, CommandQueue, execute
from trainer.control.correction_state import CorrectionState
from trainer.control.deadline import check_deadline
from trainer.control.fix_tracker import FixTracker
from trainer.control.probe_queue import ProbeQueue
from trainer.control.sync_driver import SyncDriver
from trainer.errors import RefusedError
from trainer.measure.sync_spans import Data
from trainer.report import Reporter

POLL_S = 0.05
"""How often the thread looks at the lease of a pause; commands wake it at once."""

GONE = frozenset({"engine.died", "engine.restarting"})
BACK = frozenset({"engine.replaced", "engine.restarted"})
CHANGED = frozenset({"fix.set-back"})
"""Events of the pool by which an engine is gone, is back, or has changed."""
GAVE_UP = "engine.gave-up"
"""No engine comes back any more: a caller that waits for one gets the reason from the pool."""


@dataclass(frozen=True)
class _Pause:
    by: str
    ends: float
    """By the monotonic clock."""


class CommandThread:
    """Carries out commands from a queue. `start()` once the engines are up, `close()` before they go.

    A pause stops generation in every engine and holds the loop; it carries a lease of `lease` seconds after which
    the run goes on by itself, so that an operator who went away cannot hold it for ever. The engines have the lease
    too, and go on within a second of its end should this process be gone. Pausing what is paused renews the lease, in
    the name of the last issuer; resuming what is not paused is refused; a stop ends a pause.
    """

    def __init__(
        self,
        commands: queue.SimpleQueue[Command],
        pool: EnginePool,
        syncs: SyncDriver,
        fixes: FixTracker,
        report: Reporter,
        *,
        lease: float,
        correction: str = OFF,
    ) -> None:
        self._commands = commands
        self._pool = pool
        self._fixes = fixes
        self._report = report
        self._lease = lease
        self._command_queue = CommandQueue(pool, syncs, fixes, report, self._wake_loop)
        self._correction = CorrectionState(report, correction)
        self.probes = ProbeQueue(report)
        """Active rounds that were asked for: the loop carries them out."""
        self._pause: _Pause | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._engines_down: set[str] = set()
        self.stop_commands: list[str] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._verbs: dict[str, Callable[[Command], Data | None]] = {
            "pause": self._pause_run,
            "resume": self._resume_run,
            "stop": self._stop,
            "mark": self._mark,
            "correction.set": self._correction_set,
            "shadow.set": self._shadow_set,
            "diagnose": self.probes.request,
        }

    # -- the loop's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send the state of every fix and begin to carry out commands."""
        self._fixes.send_all()
        self._command_queue.start()
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """True once the end of the run was requested."""
        return self._stopping

    @property
    def paused(self) -> bool:
        """True while an operator holds the run."""
        return self._pause is not None

    @property
    def correction(self) -> str:
        """The objective-side correction to train with; changes only in `between_steps`."""
        return self._correction.effective

    def wait_while_paused(self) -> None:
        """Wait out a pause in the middle of a step; returns at once when the run goes on, and when it is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._pause is None or self._stopping)

    def between_steps(self) -> None:
        """Between two steps: carry out what waits for that, and wait out a pause."""
        while True:
            self._command_queue.at_boundary()
            self._correction.at_boundary()
            with self._changed:
                self._changed.wait_for(lambda: self._pause is None or self._stopping or self._waiting)
                if self._stopping or not self._waiting:
                    return

    @property
    def _waiting(self) -> bool:
        return self._command_queue.waiting or self._correction.waiting

    def stop(self) -> None:
        """End the run at the next safe point; also called for SIGTERM and SIGINT, from the loop's own thread."""
        # A flag and no lock: a signal handler may interrupt the thread that holds the condition: a deadlock.
        self._stopping = True

    @property
    def no_engine_up(self) -> bool:
        """True while every engine is dead or restarting by the pool's events: a sync would wait for one."""
        return len(self._engines_down) >= len(self._pool.names)

    def engine_event(self, kind: str, engine: str) -> None:
        """An event of the pool. Where it changes an engine, its fixes are read back in turn; does not wait."""
        if kind in GONE:
            self._engines_down.add(engine)
        elif kind in BACK:
            self._engines_down.discard(engine)
        elif kind == GAVE_UP:
            self._engines_down.clear()
        if kind in GONE | BACK | CHANGED:
            self._command_queue.request_readback()

    def close(self) -> None:
        """Stop carrying out commands; those that have not begun are answered with the end of the run."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        while (command := self._next(0.0)) is not None:
            self._report.ack(command.id, "failed", ENDED)
        self._correction.close()
        self.probes.close()
        self._command_queue.close()

    def join(self, timeout: float) -> None:
        """Wait for a command that was running at `close`; with the engines gone it ends."""
        self._command_queue.join(timeout)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.is_set():
            command = self._next(POLL_S)
            if command is not None:
                self._dispatch(command)
            if self._stopping:
                # A loop that waits out a pause checks the flag again: `stop()` could not wake it.
                self._wake_loop()
            self._end_lease()

    def _next(self, timeout: float) -> Command | None:
        try:
            return self._commands.get(timeout=timeout) if timeout else self._commands.get_nowait()
        except queue.Empty:
            return None

    def _dispatch(self, command: Command) -> None:
        act, verbs = self._verbs.get(command.verb), (*self._command_queue.verbs, *self._verbs)
        if command.verb not in verbs:
            self._report.ack(command.id, "refused", f"unknown verb '{command.verb}'; allowed: {', '.join(verbs)}")
        elif clocks.passed(command.deadline):
            execute(self._report, command, check_deadline)
        else:
            self._report.ack(command.id, "accepted")
            if act is None:
                self._command_queue.submit(command)
            else:
                execute(self._report, command, act)

    def _wake_loop(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- verbs: return the data of an applied command, or None when the answer comes later ---------------------------

    def _pause_run(self, command: Command) -> Data:
        by, until = command.issuer or "?", time.time() + self._lease
        ends = time.monotonic() + self._lease
        renewed = self._pause is not None
        reports = self._pool.pause(until)
        with self._changed:
            self._pause = _Pause(by, ends)
        self._report.state(status="paused", paused_by=by, lease_until=until)
        how = "lease renewed by" if renewed else "by"
        text = f"{how} {by}, for at most {self._lease:.0f} s"
        text += "" if reports else "; no engine is up, those that come up join paused"
        self._report.event("run.paused", text, step=self._report.run.step, by=by, renewed=renewed)
        held = {f"{report.engine}.in_flight": report.in_flight for report in reports}
        return {"lease_until": until, "renewed": renewed, **held}

    def _resume_run(self, command: Command) -> Data:
        if self._pause is None:
            raise RefusedError("the run is not paused")
        self._resume(f"by {command.issuer or '?'}")
        return {}

    def _stop(self, command: Command) -> None:
        self.stop_commands.append(command.id)
        self._report.event("run.stop", f"asked for by {command.issuer or '?'}", step=self._report.run.step)
        self.stop()

    def _mark(self, command: Command) -> Data:
        text, by = command.args.get("text", ""), command.issuer or "?"
        self._report.event("mark", text, step=self._report.run.step, by=by)
        return {}

    def _correction_set(self, command: Command) -> None:
        self._correction.request(command)
        self._wake_loop()

    def _shadow_set(self, command: Command) -> Data:
        try:
            share = shadow.share(command.args.get("share", ""))
            self._pool.set_shadow(share)
        except (shadow.BadShareError, EngineError) as error:
            raise RefusedError(str(error)) from error
        by = command.issuer or "?"
        self._report.state(shadow_share=share, shadow_by=by)
        text = f"{share:g} of the groups are scored by another engine, by {by}" if share else f"none is scored, by {by}"
        self._report.event("shadow.set", text, step=self._report.run.step, share=share, by=by)
        return {"share": share}

    # -- pauses -----------------------------------------------------------------------------------------------------

    def _end_lease(self) -> None:
        if self._pause is None or not clocks.passed(self._pause.ends):
            return
        try:
            self._resume("its lease ran out")
        except (EngineError, FutureTimeoutError) as error:
            # The loop meets a dead pool itself as soon as it is let go, and goes on with engines that are left beside
            # one that stays paused over damaged weights.
            self._report.event("run.resume-failed", str(error), level="error", step=self._report.run.step)
            self._release_loop()

    def _resume(self, why: str) -> None:
        self._pool.resume()
        self._release_loop()
        self._report.event("run.resumed", why, step=self._report.run.step)

    def _release_loop(self) -> None:
        with self._changed:
            self._pause = None
            self._changed.notify_all()
        self._report.state(status="running", paused_by="", lease_until=0.0)
