"""What becomes of a run's hub and supervisor, for a status line, the doctor and the banner of a console."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from driftline import supervision
from driftline.rundir import RunDir, RunError
from driftline.supervision import Supervision

NO_SUPERVISOR: Final = "NO SUPERVISOR"


class Care(msgspec.Struct, frozen=True):
    """The record of a run's supervisor, and whether that one, or another since, lives."""

    record: Supervision
    alive: bool


def look(run: RunDir | None) -> Care | None:
    """None for a run without a supervisor by its own wish, one that has ended in order, and one elsewhere."""
    if run is None or (record := supervision.read(run)) is None:
        return None
    try:
        return Care(record, run.supervised())
    except RunError:  # a filesystem without locks
        return None


def alive(run: RunDir) -> bool:
    """True while a supervisor looks after the run."""
    care = look(run)
    return care is not None and care.alive


def hub_text(care: Care, now: float) -> str:
    """A clause about a hub that has died of late or is away, "" if there is nothing to say. `now` is Unix time."""
    record = care.record
    window = f"{record.hub_window / 60:g} min"
    recent = record.hub_deaths if now - record.hub_died <= record.hub_window else 0
    often = f"{recent} death{'s' * (recent != 1)} within {window}"
    if not care.alive:
        return ""
    if record.hub_away:
        away = f"away for {max(0.0, now - record.hub_away):.0f} s"
        if record.hub_next > now:
            return f"{away}, started again in {record.hub_next - now:.0f} s, {often}"
        return f"{away}, being started, {often}"
    return f"started again, {often}" if recent else ""


def words(care: Care | None, now: float) -> list[str]:
    """Parts of a status line."""
    if care is None:
        return []
    text = hub_text(care, now)
    return [f"hub {text}" if text else "", "" if care.alive else NO_SUPERVISOR]


def document(care: Care | None, now: float) -> dict[str, Any] | None:
    """As plain values for JSON; the keys are documented in `console.cli.verbs.status`."""
    if care is None:
        return None
    record = care.record
    return {
        "pid": record.pid,
        "alive": care.alive,
        "detached": record.detached,
        "started": record.started,
        "takeovers": len(record.takeovers),
        "hub_deaths": record.hub_deaths if now - record.hub_died <= record.hub_window else 0,
        "hub_window": record.hub_window,
        "hub_away": record.hub_away or None,
        "hub_next": record.hub_next or None,
    }
