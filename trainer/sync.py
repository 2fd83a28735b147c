"""The sync driver: sends the newest weights to every engine, one sync or fix change at a time, and reports it."""

from __future__ import annotations

import threading

from driftline.frames import Span
from engine import EngineError, EnginePool, SyncReport
from trainer.report import Reporter, plural
from trainer.versions import Weights, WeightStore

PHASES = ("pause", "load", "resume")


class SyncDriver:
    """`lock` is what keeps syncs, pauses and fix changes from overlapping; its holder may act on the pool."""

    def __init__(self, pool: EnginePool, store: WeightStore, report: Reporter, *, timeout: float) -> None:
        self.lock = threading.RLock()
        self._pool = pool
        self._store = store
        self._report = report
        self._timeout = timeout
        self._count = 0
        self._latest: dict[str, float] = {}

    def sync(self, step: int, by: str) -> list[SyncReport]:
        """Pause, load the newest weights, resume, on every engine. Raises EngineError when one is dead or silent."""
        with self.lock:
            version, weights = self._store.newest()
            self._count += 1
            name = f"sync-{self._count}"
            try:
                reports = self._send(weights, version)
            except EngineError as error:
                self._report.event("sync.failed", f"v{version}: {error}", level="error", step=step, sync=name, by=by)
                raise
            self._latest = slowest(reports)
        for report in reports:
            for span in spans(name, report, step):
                self._report.send(span)
        failed = [report for report in reports if not report.ok]
        if failed:
            text = "; ".join(f"{report.engine}: {report.detail or 'not loaded'}" for report in failed)
            self._report.event("sync.failed", f"v{version}: {text}", level="error", step=step, sync=name, by=by)
        else:
            text = f"v{version} on {plural(len(reports), 'engine')} in {slowest(reports)['sync/total_s']:.3f} s"
            self._report.event(
                "sync.done",
                text,
                step=step,
                sync=name,
                by=by,
                version=version,
                bytes=max(r.bytes for r in reports),
                in_flight=sum(r.in_flight for r in reports),
            )
        return reports

    def _send(self, weights: Weights, version: int) -> list[SyncReport]:
        try:
            return self._pool.sync(weights, version, timeout=self._timeout)
        except TimeoutError as error:
            raise EngineError(
                f"an engine did not take its weights within {self._timeout:g} s (sync.timeout)"
            ) from error

    def take_latest(self) -> dict[str, float]:
        """`sync/*` of the latest sync since the previous call; empty when there was none."""
        with self.lock:
            latest, self._latest = self._latest, {}
            return latest


def slowest(reports: list[SyncReport]) -> dict[str, float]:
    """`sync/*` of the catalogue: each phase of the engine that took longest over it, in seconds."""
    return {f"sync/{phase}_s": max(getattr(report, f"{phase}_s") for report in reports) for phase in (*PHASES, "total")}


def spans(sync: str, report: SyncReport, step: int) -> list[Span]:
    """One span per phase, laid end to end from the engine's start time, and one over all of them."""
    result, start = [], report.start
    for phase in (*PHASES, "total"):
        seconds = getattr(report, f"{phase}_s")
        result.append(
            Span(
                sync=sync,
                engine=report.engine,
                phase=phase,
                start=report.start if phase == "total" else start,
                seconds=seconds,
                version_before=report.version_before,
                version_after=report.version_after,
                step=step,
                bytes=report.bytes,
                in_flight=report.in_flight,
                ok=report.ok,
                detail=report.detail,
            )
        )
        start += seconds
    return result


def phases(reports: list[SyncReport]) -> dict[str, str | float | int | bool]:
    """The reports as the flat data of an Ack: `engine-0.pause_s` and so on."""
    data: dict[str, str | float | int | bool] = {}
    for report in reports:
        for phase in (*PHASES, "total"):
            data[f"{report.engine}.{phase}_s"] = getattr(report, f"{phase}_s")
        data[f"{report.engine}.version"] = report.version_after
        data[f"{report.engine}.bytes"] = report.bytes
        data[f"{report.engine}.in_flight"] = report.in_flight
        data[f"{report.engine}.ok"] = report.ok
    return data
