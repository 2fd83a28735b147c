"""The summary of a run as Markdown. Pure: a model in, text out; text of a model or producer is escaped."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from console.formatting import short
from console.status.fix_effects import AGAINST, change_of, relative, units
from console.store.model import RunModel
from driftline.catalog.fixes import BY_ID
from driftline.catalog.metrics import BY_NAME, METRICS, health
from driftline.frames import Effect, EngineState, Measure
from driftline.text import natural

WINDOW: Final = 20
"""Steps at the beginning and at the end of a run that are compared."""
EVENTS: Final = 50
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~!])")


def markdown(
    name: str,
    model: RunModel,
    damaged: int,
    files: Sequence[tuple[str, str]],
    missing: Sequence[str] = (),
    diagnosis: Sequence[str] = (),
) -> str:
    """The summary of a run; `files` are (name, description) of the files beside it, `missing` clauses about what is
    not in here, `diagnosis` the lines of `console.diagnosis.report`."""
    parts = [
        f"# Evidence: {safe(name)}",
        *_state(model, damaged),
        *(f"**Not complete: {safe(one)}.**" for one in missing),
        *(["## Diagnosis", *(safe(line) for line in diagnosis)] if diagnosis else []),
        "## Metrics",
        *_metrics(model),
        "## Fixes",
        *_fixes(model),
        "## Measured effects",
        *_effects(model),
        "## Commands",
        *_commands(model),
        "## Warnings and errors",
        *_events(model),
        "## Files",
        *_table(("file", "what it is"), ((f"`{file}`", what) for file, what in files)),
    ]
    return "\n\n".join(parts) + "\n"


def safe(text: str) -> str:
    """Text on one line, escaped for Markdown."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _state(model: RunModel, damaged: int) -> list[str]:
    run = model.run
    if run is None:
        return ["The run has not reported its state."]
    rows = [
        ("status", f"{run.status}{f': {safe(run.detail)}' if run.detail else ''}"),
        ("steps", f"{model.step}{f' of {run.steps}' if run.steps > 0 else ''}"),
        ("weights", f"v{run.version}"),
        ("objective", safe(run.objective)),
        ("model", safe(run.model)),
        ("temperature", f"{run.temperature:g}"),
        ("config digest", f"`{safe(run.config_digest)}`" if run.config_digest else ""),
        ("first frame", _clock(model.first_time)),
        ("last frame", _clock(model.last_time)),
        ("engines", ", ".join(safe(f"{one.engine} ({one.backend} {one.vllm})") for one in _sorted(model))),
    ]
    parts = []
    if run.synthetic:
        parts.append("**SYNTHETIC: these numbers were made up by a simulator; there was no engine and no trainer.**")
    parts.append(_table(("", ""), (row for row in rows if row[1]))[0])
    if damaged:
        parts.append(f"{damaged} bytes of the journal were damaged and are not in here.")
    return parts


def _sorted(model: RunModel) -> list[EngineState]:
    return [model.engines[name] for name in sorted(model.engines, key=natural)]


def _metrics(model: RunModel) -> list[str]:
    rows = []
    known = [metric.name for metric in METRICS]
    names = [name for name in known if name in model.metrics.names()]
    for name in names:
        values = np.asarray(model.metrics.points(name).values, np.float64)
        if not len(values):
            continue
        first, last = _mean(values[:WINDOW]), _mean(values[-WINDOW:])
        metric = BY_NAME[name]
        verdict = health(name, last).replace("none", "")
        rows.append((f"`{name}`", _number(first), _number(last), str(len(values)), metric.unit, verdict))
    if not rows:
        return ["Nothing was reported."]
    text = f"Means over the first and the last {WINDOW} steps at which each was reported; non-finite values left out."
    return [text, *_table(("metric", "first", "last", "points", "unit", "published limits"), rows)]


def _mean(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _fixes(model: RunModel) -> list[str]:
    rows = []
    for fix_id in BY_ID:
        state = model.fixes.get(fix_id)
        if state is None:
            rows.append((f"`{fix_id}`", "not reported", "", "", ""))
            continue
        engines = ", ".join(f"{safe(one.engine)} {safe(one.effective) or '?'}" for one in state.engines)
        rows.append((f"`{fix_id}`", safe(state.requested), safe(state.effective) or "?", safe(state.by), engines))
    marks = [mark for mark in model.marks if mark.kind == "fix"]
    changed = ["Changed live: " + "; ".join(f"step {mark.step}: {safe(mark.text)}" for mark in marks)] if marks else []
    return [*_table(("fix", "requested", "effective", "by", "engines"), rows), *changed]


def _effects(model: RunModel) -> list[str]:
    rows = []
    for effect in {one.id: one for one in model.effects.values()}.values():
        rows += [_effect(effect, measure) for measure in effect.measures]
    if not rows:
        return ["None: no fix was changed while the run went on, or too few tokens came after it."]
    text = (
        "Before and after: means over tokens that were sampled under the state before and after the change. Difference "
        f'and relative: {AGAINST}, with 95 % intervals by what stands under "by". The effect of several fixes at once '
        "is that of the set."
    )
    head = ("change", "at step", "metric", "before", "after", "difference", "relative", "by", "tokens")
    return [text, *_table(head, rows)]


def _effect(effect: Effect, measure: Measure) -> tuple[str, ...]:
    change = "; ".join(f"{safe(fix)} {safe(before)} to {safe(after)}" for fix, before, after in effect.changes)
    interval = f"{_number(change_of(measure))} [{_number(measure.low)}, {_number(measure.high)}]"
    share = relative(measure)
    by = units(measure) or safe(measure.note)
    tokens = f"{measure.tokens_before} / {measure.tokens_after}"
    return (
        change, str(effect.step), f"`{safe(measure.metric)}`",
        _number(measure.before), _number(measure.after),
        interval, str(share) if share is not None else "n/a", by, tokens,
    )  # fmt: skip


def _commands(model: RunModel) -> list[str]:
    rows = []
    for life in model.commands.values():
        command = life.command
        args = " ".join(f"{safe(key)}={safe(value)}" for key, value in command.args.items())
        last = life.acks[-1] if life.acks else None
        rows.append(
            (_clock(life.acks[0].time if life.acks else None), safe(command.issuer), command.verb, args, life.state,
             safe(last.detail) if last is not None else "")
        )  # fmt: skip
    return _table(("when", "who", "verb", "arguments", "ended", "detail"), rows) if rows else ["None."]


def _events(model: RunModel) -> list[str]:
    bad = [logged for logged in model.events if logged.event.level != "info"]
    if not bad:
        return ["None."]
    text = [f"The newest {EVENTS} of {len(bad)}."] if len(bad) > EVENTS else []
    rows = (
        (_clock(one.time), str(one.event.step) if one.event.step >= 0 else "", one.event.level, safe(one.event.kind),
         safe(one.event.text))
        for one in bad[-EVENTS:]
    )  # fmt: skip
    return [*text, *_table(("when", "step", "level", "kind", "text"), rows)]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return ["\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])]


def _number(value: float) -> str:
    return short(value) if math.isfinite(value) else "n/a"


def _clock(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds)) if seconds is not None else ""
