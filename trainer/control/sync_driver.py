"""The sync driver: sends the newest weights to every engine, one sync at a time, with the fixes that wait for one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from driftline import clocks
from driftline.catalog.fixes import BY_ID, OFF, ON
from driftline.config import SyncConfig
from driftline.frames import AckState, EngineFix, FixState, meets
from driftline.text import plural
from engine import EngineError, EnginePool, SyncReport
from trainer.control.fix_tracker import FixTracker
from trainer.learn.lm_head import Head
from trainer.learn.versions import Weights, WeightStore
from trainer.measure.fix_states import HEAD
from trainer.measure.sync_spans import gb_per_s, slowest, spans
from trainer.report import Reporter


@dataclass(frozen=True)
class Staged:
    """A fix that takes effect at a sync: its command, issuer and deadline (by the monotonic clock, 0 for
    none), and the state before the request.
    """

    command: str
    fix: str
    value: str
    by: str
    deadline: float
    before: FixState


@dataclass(frozen=True)
class Synced:
    """One sync over the pool."""

    name: str
    version: int
    reports: list[SyncReport]

    @property
    def failed(self) -> str:
        """The reason why some engines do not hold the weights, as one sentence; empty when all do."""
        bad = [report for report in self.reports if not report.ok]
        return "; ".join(f"{report.engine}: {report.detail or 'not loaded'}" for report in bad)


class SyncDriver:
    """`lock` keeps syncs and fix changes from overlapping; a second sync waits its turn and is then carried out, for
    an operator syncs by hand to repair. Pauses take no lock: they must be served while a sync waits for an engine.

    A change of the head that the trainer follows goes along only with a sync at a `boundary`, which the loop makes
    between two steps in its own thread: there the engines and the trainer change together.
    """

    def __init__(
        self, pool: EnginePool, store: WeightStore, report: Reporter, fixes: FixTracker, head: Head, config: SyncConfig
    ) -> None:
        self.lock = threading.RLock()
        self._pool = pool
        self._store = store
        self._report = report
        self._fixes = fixes
        self._head = head
        self._config = config
        self._count = 0
        self._latest: dict[str, float] = {}
        self._staged: dict[str, Staged] = {}

    # -- fixes that take effect at a sync ------------------------------------------------------------------------------

    def stage(self, staged: Staged) -> None:
        """Let the next sync carry this change. What was staged for the same fix before is answered and forgotten."""
        with self.lock:
            replaced = self._staged.get(staged.fix)
            self._staged[staged.fix] = staged
        if replaced is not None:
            text = f"replaced by {staged.by}, who set {staged.fix} to {staged.value} before a sync came"
            self._report.ack(replaced.command, "failed", text)

    @property
    def needs_boundary(self) -> bool:
        """Whether the next sync has to be made by the loop between two steps."""
        with self.lock:
            return self._head.follows and HEAD in self._staged

    def drop_staged(self, reason: str) -> None:
        """No sync will come any more: answer everything that waits for one."""
        with self.lock:
            for staged in list(self._staged.values()):
                self._drop(staged, "failed", reason)

    # -- syncs ---------------------------------------------------------------------------------------------------------

    def sync(self, step: int, by: str, *, boundary: bool = False) -> Synced:
        """Pause, load, verify, resume, on every engine. Raises EngineError when none takes the weights in time."""
        with self.lock:
            version, weights = self._store.newest()
            self._count += 1
            name = f"sync-{self._count}"
            self._stage_on_engines(boundary)
            try:
                reports = self._send(weights, version)
            except EngineError as error:
                self._report.event("sync.failed", f"v{version}: {error}", level="error", step=step, sync=name, by=by)
                raise
            self._latest = slowest(reports)
            synced = Synced(name, version, reports)
            self._report_sync(synced, step, by)
            self._apply_fixes(synced, step, boundary)
            return synced

    def take_latest(self) -> dict[str, float]:
        """`sync/*` of the latest sync since the previous call; empty when there was none."""
        with self.lock:
            latest, self._latest = self._latest, {}
            return latest

    def _send(self, weights: Weights, version: int) -> list[SyncReport]:
        config = self._config
        try:
            return self._pool.sync(
                weights,
                version,
                timeout=config.timeout,
                barrier=config.resume == "barrier",
                retries=config.retries,
            )
        except TimeoutError as error:
            raise EngineError(
                f"an engine did not take its weights within {config.timeout:g} s (sync.timeout)"
            ) from error

    def _stage_on_engines(self, boundary: bool) -> None:
        for staged in list(self._staged.values()):
            if clocks.passed(staged.deadline):
                self._drop(staged, "expired", "its deadline passed before a sync came")
            elif boundary or staged.fix != HEAD or not self._head.follows:
                # Refused while no engine is up: it stays staged here, for the sync after this one.
                with suppress(EngineError):
                    self._pool.stage_fix(staged.fix, staged.value)

    def _drop(self, staged: Staged, state: AckState, reason: str) -> None:
        del self._staged[staged.fix]
        if staged.fix in self._pool.staged:
            # A sync that failed has left it there; without an engine up there is nothing to take back.
            with suppress(EngineError):
                self._pool.stage_fix(staged.fix, staged.before.requested)
        self._fixes.withdraw(staged.before, reason)
        self._report.ack(staged.command, state, reason)

    def _apply_fixes(self, synced: Synced, step: int, boundary: bool) -> None:
        """Record the fixes that the engines report; the trainer's head follows, and waiting commands are answered."""
        good = [report for report in synced.reports if report.ok and report.fixes]
        seen = by_fix(report.fixes for report in synced.reports if report.fixes)
        heads = {fixes[HEAD].effective for fixes in self._following(HEAD, good)}
        if boundary and self._head.follows and len(heads) == 1 and heads <= {ON, OFF}:
            self._head.follow(*heads)
        self._fixes.observe(seen, version=synced.version, step=step)
        for staged in list(self._staged.values()):
            reached = [fixes[staged.fix] for fixes in self._following(staged.fix, good)]
            if good and len(good) == len(synced.reports) and all(meets(staged.value, e.effective) for e in reached):
                self._acknowledge(staged, reached, synced, step)

    def _following(self, fix_id: str, reports: Sequence[SyncReport]) -> list[dict[str, EngineFix]]:
        """The fixes of those engines that follow the pool in this one, as they report them."""
        own = {engine.engine for engine in self._fixes.state(fix_id).engines if engine.wanted}
        return [dict(zip(BY_ID, report.fixes, strict=True)) for report in reports if report.engine not in own]

    def _acknowledge(self, staged: Staged, engines: Sequence[EngineFix], synced: Synced, step: int) -> None:
        del self._staged[staged.fix]
        fix, value, by = staged.fix, staged.value, staged.by
        report_applied(self._report, fix, value, by, len(engines), version=synced.version, step=step)
        data = {f"{engine.engine}.effective": engine.effective for engine in self._fixes.state(staged.fix).engines}
        self._report.ack(staged.command, "applied", data={"sync": synced.name, "version": synced.version, **data})

    def _report_sync(self, synced: Synced, step: int, by: str) -> None:
        name, version, reports = synced.name, synced.version, synced.reports
        for report in reports:
            for span in spans(name, report, step):
                self._report.send(span)
            if report.attempts > 1:
                text = f"{report.engine}: v{version} took {report.attempts} attempts"
                text += f": {report.detail}" if report.detail else ""
                self._report.event(
                    "sync.retried", text, level="warn", step=step, sync=name,
                    engine=report.engine, attempts=report.attempts, ok=report.ok,
                )  # fmt: skip
        if synced.failed:
            text = f"v{version}: {synced.failed}"
            self._report.event("sync.failed", text, level="error", step=step, sync=name, by=by)
        elif reports:
            self._report.event(
                "sync.done",
                f"v{version} on {plural(len(reports), 'engine')} in {slowest(reports)['sync/total_s']:.3f} s",
                step=step,
                sync=name,
                by=by,
                version=version,
                bytes=max(r.bytes for r in reports),
                gb_per_s=min(gb_per_s(r) for r in reports),
                held_s=max(r.held_s for r in reports),
                in_flight=sum(r.in_flight for r in reports),
                straddling=sum(r.straddling for r in reports),
                digest=reports[0].digest,
            )


def report_applied(report: Reporter, fix: str, value: str, by: str, engines: int, *, version: int, step: int) -> None:
    """The event of a fix that every engine has reported."""
    report.event(
        "fix.applied",
        f"{fix}: {value}, {plural(engines, 'engine')}, by {by}",
        step=step,
        fix=fix,
        value=value,
        by=by,
        version=version,
    )


def by_fix(engines: Iterable[Sequence[EngineFix]]) -> dict[str, list[EngineFix]]:
    """The fixes of several engines, each in the catalogue's order, as fix id to one EngineFix an engine."""
    seen: dict[str, list[EngineFix]] = {}
    for fixes in engines:
        for fix_id, state in zip(BY_ID, fixes, strict=True):
            seen.setdefault(fix_id, []).append(state)
    return seen
