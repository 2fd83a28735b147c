"""The state of a run in one frozen value, and as one line: what `status`, scripts and status bars read.

Pure: frames in, text or plain dictionaries out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from console.formatting import short
from console.status import engine_config, fix_coverage
from console.status.fix_coverage import coverage
from console.status.lease import session_name
from console.status.link_health import over
from driftline.catalog.metrics import health, resolve
from driftline.frames import Effect, EngineState, FixState, Frame, Lease, Metrics, RunState
from driftline.text import natural, sanitize

SERVING = frozenset({"running", "paused", "syncing"})
"""Phases of an engine that is up."""

BAR = (
    ("lag", "async/version_lag_mean"),
    ("R", "reward/mean"),
    ("KL", "policy/kl_new_old"),
    ("H", "policy/entropy"),
    ("mm", "mismatch/abs_diff_mean"),
)
"""Metrics on the status line: version lag, reward, KL old||new, entropy H, mismatch mm."""


@dataclass(frozen=True)
class Summary:
    """Newest state of everything in a run; `metrics` under canonical names, `step` their trainer step.

    `effects` has by fix the measured effect of its newest change; an effect of several changes is listed under each.
    `writer` is the session that has the lease, None if it is free.
    """

    run: RunState | None = None
    engines: dict[str, EngineState] = field(default_factory=dict)
    fixes: dict[str, FixState] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    step: int = -1
    version: int = -1
    writer: Lease | None = None


def summarise(frames: Iterable[Frame], before: Summary | None = None) -> Summary:
    """Fold frames, oldest first, into a summary."""
    old = before or Summary()
    run, engines, fixes, effects = old.run, dict(old.engines), dict(old.fixes), dict(old.effects)
    metrics, step, version, writer = dict(old.metrics), old.step, old.version, old.writer
    for frame in frames:
        match frame:
            case RunState():
                run = frame
            case Lease():
                writer = frame if frame.issuer else None
            case EngineState():
                engines[frame.engine] = frame
            case FixState():
                fixes[frame.fix] = frame
            case Effect():
                effects |= dict.fromkeys((fix for fix, _, _ in frame.changes), frame)
            case Metrics():
                if frame.step != step:
                    metrics = {}
                step, version = frame.step, frame.version
                metrics |= {resolve(name): value for name, value in frame.values.items()}
            case _:
                pass
    return Summary(run, engines, fixes, effects, metrics, step, version, writer)


def line(run_id: str, summary: Summary, *, live: bool) -> str:
    """One line: `demo-7f3a step 812/900 v41 lag 1.2 R .43 KL .02 H 1.9 mm .038 2/2 engines running`."""
    state = summary.run
    parts = [run_id]
    if state is not None and state.synthetic:
        parts.append("SYNTHETIC")
    step, version = newest_step(summary)
    if step >= 0:
        parts.append(f"step {step}/{state.steps}" if state is not None and state.steps else f"step {step}")
        parts += [f"v{version}"] if version >= 0 else []
    for label, name in BAR:
        if name in summary.metrics:
            value = summary.metrics[name]
            # "!" is the catalogue's alarm: a status bar has no colours of its own.
            parts.append(f"{label} {short(value)}{'!' if health(name, value) == 'alarm' else ''}")
    if summary.engines:
        parts.append(_engines(summary, live=live))
    parts.append(word(summary, live=live))
    parts += [f"{state.fix} {coverage(state).text}" for state in partial(summary)] if live else []
    if state is not None and state.status == "starting" and state.detail:
        parts.append(f"({sanitize(state.detail)})")
    if live and summary.writer is not None:
        parts.append(f"held by {sanitize(session_name(summary.writer))}")
    return " ".join(parts)


def partial(summary: Summary) -> list[FixState]:
    """The fixes that some engines have and others lack, or say nothing of."""
    return [state for state in summary.fixes.values() if coverage(state).partial]


def _engines(summary: Summary, *, live: bool) -> str:
    """How many engines serve; of a run that has ended, or whose hub has gone, only how many there were."""
    count = len(summary.engines)
    if over(summary.run):
        return f"{count} engine{'s' * (count > 1)} ended,"
    if not live:
        return f"{count} engine{'s' * (count > 1)}"
    return f"{sum(engine.phase in SERVING for engine in summary.engines.values())}/{count} engines"


def word(summary: Summary, *, live: bool) -> str:
    """The run's status in a word. A run whose hub has gone without reporting an end has "died"."""
    if summary.run is None:
        # A trainer that only emits metrics does not report its state.
        return ("live" if summary.metrics else "no trainer yet") if live else "ended"
    status = summary.run.status
    if live or over(summary.run):
        return status
    return "died"


def newest_step(summary: Summary) -> tuple[int, int]:
    """Trainer step and weight version: of the run's state or of its metrics, whichever is ahead."""
    state = summary.run
    if state is None or summary.step > state.step:
        return summary.step, summary.version
    return state.step, state.version


def document(run_id: str, path: str, summary: Summary, *, live: bool) -> dict[str, Any]:
    """The summary as plain values for JSON; the keys are documented in `console.cli.verbs.status`."""
    state = summary.run
    step, version = newest_step(summary)
    return {
        "run": run_id,
        "path": path,
        "live": live,
        "status": word(summary, live=live) if state is not None else "unknown",
        "detail": state.detail if state is not None else "",
        "synthetic": state.synthetic if state is not None else False,
        "step": step,
        "steps": state.steps if state is not None else 0,
        "version": version,
        "time": state.time if state is not None else 0.0,
        "objective": state.objective if state is not None else "",
        "model": state.model if state is not None else "",
        "temperature": state.temperature if state is not None else 0.0,
        "paused_by": state.paused_by if state is not None else "",
        "lease_until": state.lease_until if state is not None else 0.0,
        "writer": writer_document(summary.writer) if live and summary.writer is not None else None,
        "config_digest": state.config_digest if state is not None else "",
        "metrics": {"step": summary.step, "version": summary.version, "values": summary.metrics},
        "engines": [engine_document(summary.engines[name]) for name in sorted(summary.engines, key=natural)],
        "differences": engine_config.document(engine_config.differences(summary.engines, summary.fixes)),
        "fixes": [fix_document(fix) for fix in summary.fixes.values()],
    }


def writer_document(writer: Lease) -> dict[str, Any]:
    """The session that has the lease, as plain values."""
    return {name: getattr(writer, name) for name in Lease.__struct_fields__}


def engine_document(engine: EngineState) -> dict[str, Any]:
    """One engine as plain values."""
    return {name: getattr(engine, name) for name in EngineState.__struct_fields__}


def fix_document(fix: FixState) -> dict[str, Any]:
    """One fix as plain values, with its value over the whole pool."""
    return {
        "id": fix.fix,
        "requested": fix.requested,
        "effective": fix.effective,
        "settled": fix.settled,
        "coverage": fix_coverage.document(fix),
        "how": fix.how,
        "generation": fix.generation,
        "by": fix.by,
        "time": fix.time,
        "detail": fix.detail,
        "engines": [{name: getattr(one, name) for name in one.__struct_fields__} for one in fix.engines],
    }
