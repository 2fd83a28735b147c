"""Commands that take their time: fix changes and manual syncs, one after the other on a thread of their own.

So a rolling restart or a sync that waits for an engine never keeps a pause or a stop waiting. What each command does
while something else is going on:

- a sync during a sync waits for its turn and is then carried out: operators sync manually to repair;
- a sync while `fp32-lm-head` is staged is left to the loop, which makes it as soon as its step has ended, because the
  trainer's own head changes with it (at once when the loop is between two steps, paused or not);
- a change that takes effect at a sync is answered by the sync that made it so, or expires before one;
- a change during a rolling restart of another fix goes on beside it; of the same fix, and a second restart, is refused;
- what has not been carried out when the run ends is answered with that.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from driftline.catalog import fixes as fix_catalogue
from driftline.frames import Command, FixState
from engine import EngineError, EnginePool
from engine.types import RestartReport
from trainer.control.deadline import check_deadline
from trainer.control.fix_tracker import FixTracker
from trainer.control.sync_driver import Staged, SyncDriver, report_applied
from trainer.errors import ExpiredError, RefusedError
from trainer.measure.sync_spans import Data, sync_data
from trainer.report import Reporter

ENDED = "the run has ended"


def execute(report: Reporter, command: Command, act: Callable[[Command], Data | None]) -> None:
    """Carry out a command and acknowledge its outcome; `act` returns None when the acknowledgement comes later."""
    try:
        data = act(command)
    except RefusedError as error:
        report.ack(command.id, "refused", str(error))
    except ExpiredError as error:
        report.ack(command.id, "expired", str(error))
    except (EngineError, FutureTimeoutError) as error:
        report.ack(command.id, "failed", str(error) or "an engine did not answer in time")
    except Exception as error:  # noqa: BLE001  the thread must outlive any command, and its sender must get the outcome
        report.ack(command.id, "failed", f"{type(error).__name__}: {error}")
        report.event("command.failed", f"{command.verb}: {error}", level="error", step=report.run.step)
    else:
        if data is not None:
            report.ack(command.id, "applied", data=data)


class CommandQueue:
    """Carries out `fix.set` and `sync`. `on_boundary` is called when something waits for `at_boundary`."""

    def __init__(
        self, pool: EnginePool, syncs: SyncDriver, fixes: FixTracker, report: Reporter, on_boundary: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._syncs = syncs
        self._fixes = fixes
        self._report = report
        self._on_boundary = on_boundary
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: deque[Command] = deque()
        self._restarting: tuple[str, Command] | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="command-queue", daemon=True)
        self.verbs: dict[str, Callable[[Command], Data | None]] = {"fix.set": self._fix_set, "sync": self._sync}

    def start(self) -> None:
        """Begin to carry out the submitted commands."""
        self._thread.start()

    def submit(self, command: Command) -> None:
        """Carry out a command in its turn."""
        self._queue.put(lambda: self._carry_out(command))

    def request_readback(self) -> None:
        """Read the engines' fixes back in turn: one of them is not what it was."""
        self._queue.put(self._observe)

    @property
    def waiting(self) -> bool:
        """Whether something waits for the loop."""
        return bool(self._waiting)

    def at_boundary(self) -> None:
        """Carry out what has to happen between two steps; on the loop's thread."""
        while self._waiting:
            execute(self._report, self._waiting.popleft(), self._sync_now)

    def close(self) -> None:
        """Answer everything that is not done with the end of the run; what is going on may take until `join`."""
        self._ended = True
        self._queue.put(None)
        self.join(1.0)
        while self._waiting:
            self._report.ack(self._waiting.popleft().id, "failed", ENDED)
        if self._restarting is not None:
            _, command = self._restarting
            self._report.ack(command.id, "failed", f"{ENDED} during the restart")
        self._syncs.drop_staged(ENDED)

    def join(self, timeout: float) -> None:
        """Wait for the thread."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    # -- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()

    def _carry_out(self, command: Command) -> None:
        if self._ended:
            self._report.ack(command.id, "failed", ENDED)
            return
        execute(self._report, command, self.verbs[command.verb])

    def _observe(self) -> None:
        if self._ended:
            return
        run = self._report.run
        try:
            self._fixes.observe(self._pool.fix_states(), version=run.version, step=run.step)
        except (EngineError, FutureTimeoutError) as error:
            text = f"the engines' fixes could not be read back: {error}"
            self._report.event("fix.unread", text, level="warn", step=run.step)

    def _fix_set(self, command: Command) -> Data | None:
        fix_id, value, by = command.args.get("fix", ""), command.args.get("value", ""), command.issuer or "?"
        try:
            fix_catalogue.check(fix_id, value)
        except fix_catalogue.UnknownFixError as error:
            raise RefusedError(str(error)) from error
        with self._syncs.lock:
            check_deadline(command)
            self._check_free(fix_id, command.generation)
            if engine := command.args.get("engine", ""):
                return self._fix_one(fix_id, value, engine, by)
            before = self._fixes.request(fix_id, value, by)
            try:
                how = self._pool.how(fix_id, value)
                if how == "next_sync":
                    self._syncs.stage(Staged(command.id, fix_id, value, by, command.deadline, before))
                    return None
                if how == "engine_restart":
                    self._restart(command, before, fix_id, value)
                    return None
                engines = self._pool.set_fix(fix_id, value)
            except (EngineError, FutureTimeoutError) as error:
                self._fixes.withdraw(before, str(error) or "an engine did not answer in time")
                raise
            run = self._report.run
            self._fixes.observe({fix_id: engines}, version=run.version, step=run.step)
        report_applied(self._report, fix_id, value, by, len(engines), version=run.version, step=run.step)
        return self._effective(fix_id)

    def _fix_one(self, fix_id: str, value: str, engine: str, by: str) -> Data:
        """Switch a fix on one engine alone, at once: the pool keeps what is wanted of it."""
        if (how := self._pool.how(fix_id, value, engine)) != "live":
            raise RefusedError(f"{fix_id} {value} takes effect by {how} on {engine}; one engine alone is switched live")
        reported = self._pool.set_fix(fix_id, value, engine)
        run = self._report.run
        self._fixes.observe({fix_id: reported}, version=run.version, step=run.step)
        text = f"{fix_id}: {value}, {engine} alone, by {by}"
        self._report.event("fix.applied", text, step=run.step, fix=fix_id, value=value, engine=engine, by=by)
        return {f"{one.engine}.effective": one.effective for one in reported}

    def _check_free(self, fix_id: str, generation: int) -> None:
        known = self._fixes.state(fix_id).generation
        if generation not in (-1, known):
            raise RefusedError(
                f"{fix_id} has changed since you looked (generation {known}, you saw {generation}); look again"
            )
        if self._restarting is not None and self._restarting[0] == fix_id:
            raise RefusedError(f"{fix_id} is being changed by a rolling restart; wait for its end")

    def _restart(self, command: Command, before: FixState, fix_id: str, value: str) -> None:
        future = self._pool.restart_fix(fix_id, value)
        self._restarting = fix_id, command
        self._report.event(
            "fix.restarting", f"{fix_id}: {value}, one engine at a time", step=self._report.run.step, fix=fix_id
        )
        future.add_done_callback(lambda done: self._queue.put(lambda: self._restarted(command, before, done)))

    def _restarted(self, command: Command, before: FixState, done: Future[list[RestartReport]]) -> None:
        if self._ended:
            return
        self._restarting = None
        execute(self._report, command, lambda _: self._after_restart(before, command, done))

    def _after_restart(self, before: FixState, command: Command, done: Future[list[RestartReport]]) -> Data:
        fix_id, value, by = before.fix, command.args["value"], command.issuer or "?"
        try:
            reports = done.result()
        except EngineError as error:
            self._fixes.withdraw(before, str(error))
            self._observe()
            raise
        self._observe()
        run = self._report.run
        report_applied(self._report, fix_id, value, by, len(reports), version=run.version, step=run.step)
        data = self._effective(fix_id)
        for report in reports:
            data |= {
                f"{report.engine}.down_s": report.down_s,
                f"{report.engine}.moved": report.moved,
                f"{report.engine}.version": report.version,
            }
        return data

    def _effective(self, fix_id: str) -> Data:
        return {f"{engine.engine}.effective": engine.effective for engine in self._fixes.state(fix_id).engines}

    def _sync(self, command: Command) -> Data | None:
        if self._syncs.needs_boundary:
            self._waiting.append(command)
            self._report.ack(command.id, "accepted", "at the end of the trainer's step: its head changes as well")
            self._on_boundary()
            return None
        return self._sync_now(command, boundary=False)

    def _sync_now(self, command: Command, *, boundary: bool = True) -> Data:
        with self._syncs.lock:
            check_deadline(command)
            synced = self._syncs.sync(self._report.run.step, command.issuer or "?", boundary=boundary)
        if synced.failed:
            raise EngineError(synced.failed)
        return sync_data(synced.name, synced.version, synced.reports)
