"""The operator's hand in the run: a thread that carries out commands at once, whatever the loop is doing.

It owns fix changes, pauses and syncs asked for by hand; the sync driver's lock keeps them from overlapping with
each other and with the loop's own syncs. The loop only meets it at `gate()` (waits out a pause) and `stopping`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass

from driftline import fixes as fix_catalogue
from driftline.frames import Command, FixState
from engine import EngineError, EnginePool
from trainer.fixboard import FixBoard
from trainer.report import Reporter, plural
from trainer.sync import SyncDriver, phases

POLL_S = 0.05
"""How often the thread looks at the lease of a pause; commands wake it at once."""

Data = dict[str, str | float | int | bool]


class _RefusedError(Exception):
    """A command that must not be carried out; the message is a whole sentence for its sender."""


@dataclass(frozen=True)
class _Pause:
    by: str
    until: float


class Control:
    """Carries out commands from a queue. `start()` once the engines are up, `close()` before they go.

    A pause stops generation in every engine and holds the loop; it carries a lease of `lease` seconds after which
    the run goes on by itself, so that an operator who went away cannot hold it for ever.
    """

    def __init__(
        self,
        commands: queue.SimpleQueue[Command],
        pool: EnginePool,
        syncs: SyncDriver,
        board: FixBoard,
        report: Reporter,
        *,
        lease: float,
    ) -> None:
        self._commands = commands
        self._pool = pool
        self._syncs = syncs
        self._board = board
        self._report = report
        self._lease = lease
        self._pause: _Pause | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self.stop_commands: list[str] = []
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._verbs: dict[str, Callable[[Command], Data | None]] = {
            "fix.set": self._fix_set,
            "sync": self._sync,
            "pause": self._pause_run,
            "resume": self._resume_run,
            "stop": self._stop,
            "mark": self._mark,
        }

    # -- the loop's side ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Tell the state of every fix and begin to carry out commands."""
        for state in self._board.states():
            self._report.send(state)
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """True once somebody asked for the end of the run."""
        return self._stopping

    @property
    def paused(self) -> bool:
        """True while an operator holds the run."""
        return self._pause is not None

    def gate(self) -> None:
        """Wait out a pause; returns at once when the run goes on, and when it is to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._pause is None or self._stopping)

    def stop(self) -> None:
        """End the run at the next safe point; also called for SIGTERM and SIGINT, from the loop's own thread."""
        # A flag and no lock: a signal handler may interrupt a holder of the condition, which then never lets go.
        self._stopping = True

    def close(self) -> None:
        """Stop carrying out commands; those that have not begun are answered with the end of the run."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
        while (command := self._next(0.0)) is not None:
            self._report.ack(command.id, "failed", "the run has ended")

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.is_set():
            command = self._next(POLL_S)
            if command is not None:
                self._carry_out(command)
            if self._stopping:
                # Whoever waits at the gate looks at the flag again: `stop()` could not wake it.
                with self._changed:
                    self._changed.notify_all()
            self._end_lease()

    def _next(self, timeout: float) -> Command | None:
        try:
            return self._commands.get(timeout=timeout) if timeout else self._commands.get_nowait()
        except queue.Empty:
            return None

    def _carry_out(self, command: Command) -> None:
        if 0 < command.deadline < time.time():
            self._report.ack(command.id, "expired", "its deadline passed before the trainer came to it")
            return
        act = self._verbs.get(command.verb)
        if act is None:
            self._report.ack(command.id, "refused", f"unknown verb '{command.verb}'; allowed: {', '.join(self._verbs)}")
            return
        self._report.ack(command.id, "accepted")
        try:
            data = act(command)
        except _RefusedError as error:
            self._report.ack(command.id, "refused", str(error))
        except (EngineError, FutureTimeoutError) as error:
            self._report.ack(command.id, "failed", str(error) or "an engine did not answer in time")
        except Exception as error:  # noqa: BLE001  the thread must outlive any command, and its sender must hear of it
            self._report.ack(command.id, "failed", f"{type(error).__name__}: {error}")
            self._report.event("command.failed", f"{command.verb}: {error}", level="error", step=self._report.run.step)
        else:
            if data is not None:
                self._report.ack(command.id, "applied", data=data)

    # -- verbs: return the data of an applied command, or None when the answer comes later ---------------------------

    def _fix_set(self, command: Command) -> Data:
        fix_id, value = command.args.get("fix", ""), command.args.get("value", "")
        try:
            fix_catalogue.check(fix_id, value)
        except fix_catalogue.UnknownFixError as error:
            raise _RefusedError(str(error)) from error
        with self._syncs.lock:
            before = self._board.state(fix_id)
            if command.generation not in (-1, before.generation):
                raise _RefusedError(
                    f"{fix_id} has changed since you looked (generation {before.generation}, "
                    f"you saw {command.generation}); look again"
                )
            by = command.issuer or "?"
            self._report.send(self._board.request(fix_id, value, by=by, time=time.time()))
            try:
                engines = self._pool.set_fix(fix_id, value)
            except (EngineError, FutureTimeoutError) as error:
                self._withdraw(before, str(error) or "an engine did not answer in time", by)
                raise
            run = self._report.run
            state = self._board.observe(fix_id, engines, time=time.time(), version=run.version, step=run.step)
        self._report.send(state)
        self._report.event(
            "fix.applied",
            f"{fix_id}: {value}, {plural(len(engines), 'engine')}, by {by}",
            step=run.step,
            fix=fix_id,
            value=value,
            by=by,
            version=run.version,
        )
        return {f"{engine.engine}.effective": engine.effective for engine in state.engines}

    def _withdraw(self, before: FixState, reason: str, by: str) -> None:
        self._report.send(self._board.withdraw(before, time=time.time(), detail=reason))
        self._report.event(
            "fix.failed", f"{before.fix}: {reason}", level="warn", step=self._report.run.step, fix=before.fix, by=by
        )

    def _sync(self, command: Command) -> Data:
        reports = self._syncs.sync(self._report.run.step, command.issuer or "?")
        failed = [report for report in reports if not report.ok]
        if failed:
            raise EngineError("; ".join(f"{report.engine}: {report.detail or 'not loaded'}" for report in failed))
        return phases(reports)

    def _pause_run(self, command: Command) -> Data:
        by, until = command.issuer or "?", time.time() + self._lease
        with self._syncs.lock:
            reports = self._pool.pause()
            with self._changed:
                self._pause = _Pause(by, until)
            self._report.state(status="paused", paused_by=by, lease_until=until)
        self._report.event("run.paused", f"by {by}, for at most {self._lease:.0f} s", step=self._report.run.step, by=by)
        return {
            "lease_until": until,
            **{f"{report.engine}.in_flight": report.in_flight for report in reports},
        }

    def _resume_run(self, command: Command) -> Data:
        if self._pause is None:
            raise _RefusedError("the run is not paused")
        self._go_on(f"by {command.issuer or '?'}")
        return {}

    def _stop(self, command: Command) -> None:
        self.stop_commands.append(command.id)
        self._report.event("run.stop", f"asked for by {command.issuer or '?'}", step=self._report.run.step)
        self.stop()

    def _mark(self, command: Command) -> Data:
        text, by = command.args.get("text", ""), command.issuer or "?"
        self._report.event("mark", text, step=self._report.run.step, by=by)
        return {}

    # -- pauses -----------------------------------------------------------------------------------------------------

    def _end_lease(self) -> None:
        if self._pause is None or time.time() < self._pause.until:
            return
        try:
            self._go_on("its lease ran out")
        except (EngineError, FutureTimeoutError) as error:
            # The loop meets a dead engine itself as soon as it is let go.
            self._report.event("run.resume-failed", str(error), level="error", step=self._report.run.step)
            with self._changed:
                self._pause = None
                self._changed.notify_all()

    def _go_on(self, why: str) -> None:
        with self._syncs.lock:
            self._pool.resume()
            with self._changed:
                self._pause = None
                self._changed.notify_all()
            self._report.state(status="running", paused_by="", lease_until=0.0)
        self._report.event("run.resumed", why, step=self._report.run.step)
