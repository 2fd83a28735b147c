"""One weight sync as frames: spans, the numbers of the step, and the flat data of an acknowledgement. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.frames import Span
from engine import SyncReport

PHASES = ("pause", "load", "verify", "reset", "resume")
TIMES = (*PHASES, "total")

Data = dict[str, str | float | int | bool]


def spans(sync: str, report: SyncReport, step: int) -> list[Span]:
    """One span per phase, laid end to end from the engine's start time, and one over all of them."""
    results = {"verify": report.digest, "reset": report.reset}
    made, start = [], report.start
    for phase in TIMES:
        seconds = _seconds(report, phase)
        made.append(
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
                straddling=report.straddling,
                result=results.get(phase, ""),
            )
        )
        start += seconds
    return made


def slowest(reports: Sequence[SyncReport]) -> dict[str, float]:
    """`sync/*` of the catalogue: each phase of the engine that took longest over it, in seconds."""
    return {f"sync/{phase}_s": max(_seconds(report, phase) for report in reports) for phase in TIMES} if reports else {}


def sync_data(sync: str, version: int, reports: Sequence[SyncReport]) -> Data:
    """Everything about one sync as the flat data of an Ack: `sync`, `version`, `engine-0.pause_s` and so on."""
    data: Data = {"sync": sync, "version": version}
    for report in reports:
        values: Data = {f"{phase}_s": _seconds(report, phase) for phase in TIMES}
        values |= {
            "held_s": report.held_s,
            "version_before": report.version_before,
            "version": report.version_after,
            "bytes": report.bytes,
            "gb_per_s": gb_per_s(report),
            "in_flight": report.in_flight,
            "straddling": report.straddling,
            "aborted": report.aborted,
            "digest": report.digest,
            "verified": report.verified,
            "reset": report.reset,
            "attempts": report.attempts,
            "ok": report.ok,
            "detail": report.detail,
        }
        data |= {f"{report.engine}.{name}": value for name, value in values.items()}
    return data


def gb_per_s(report: SyncReport) -> float:
    """Bytes loaded per second of the load phase, in 10^9; 0 for a load that took no time."""
    return report.bytes / report.load_s / 1e9 if report.load_s else 0.0


def _seconds(report: SyncReport, phase: str) -> float:
    seconds: float = getattr(report, f"{phase}_s")
    return seconds
