"""The fixes of a run, in one place with one lock: their states, their measured effects, and the publication of both.

A change is what the engines have reported: when all that are up agree on a value that they did not agree on before,
whatever caused it, its effect begins to be measured.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

import msgspec

from driftline.catalog.fixes import BY_ID, ON
from driftline.frames import Effect, EngineFix, FixState, meets
from driftline.text import plural
from trainer.control.fix_state import FixTable
from trainer.learn.lm_head import TRAINER, Head
from trainer.measure.cells import Rows
from trainer.measure.fix_effects import Change, Effects
from trainer.measure.fix_states import HEAD, Vector, vector
from trainer.report import Reporter

Reports = Mapping[str, Sequence[EngineFix]]
"""Reports of the engines: fix id to one EngineFix an engine."""


class FixTracker:
    """Thread-safe: the loop measures and observes its syncs, the operator's threads request and observe."""

    def __init__(
        self,
        seen: Reports,
        wanted: Mapping[str, str],
        defaults: Mapping[str, str],
        head: Head,
        report: Reporter,
        *,
        version: int,
        step: int,
    ) -> None:
        self._lock = threading.RLock()
        self._report = report
        self._head = head
        self._effects = Effects()
        self._table = FixTable(
            self._with_trainer(seen),
            wanted,
            time=time.time(),
            version=version,
            step=step,
            defaults=defaults,
            notes={HEAD: head.note},
        )
        self._agreed, self._vectors = self._agreement()

    def send_all(self) -> None:
        """Send the state of every fix."""
        with self._lock:
            for state in self._table.states():
                self._report.send(state)

    def state(self, fix_id: str) -> FixState:
        """The present state of one fix."""
        with self._lock:
            return self._table.state(fix_id)

    def request(self, fix_id: str, value: str, by: str) -> FixState:
        """Request a value; returns the state before."""
        with self._lock:
            before = self._table.state(fix_id)
            self._report.send(self._table.request(fix_id, value, by=by, time=time.time()))
            return before

    def withdraw(self, before: FixState, reason: str) -> None:
        """The request made after `before` could not be met."""
        with self._lock:
            state = self._table.withdraw(before, time=time.time(), detail=reason)
            self._report.send(state)
        text, step = f"{state.fix}: {reason}", self._report.run.step
        self._report.event("fix.failed", text, level="warn", step=step, fix=state.fix)

    def observe(self, seen: Reports, *, version: int, step: int) -> None:
        """Record what engines report, send what is new, and begin to measure what has changed."""
        with self._lock:
            now = time.time()
            for fix_id, engines in self._with_trainer(seen).items():
                old = self._table.state(fix_id)
                new = self._table.observe(fix_id, engines, time=now, version=version, step=step)
                if msgspec.structs.replace(new, time=old.time) != old:
                    self._report.send(new)
            self._note_changes(now, version, step)

    def add_rows(self, step: int, rows: Mapping[Vector, Rows]) -> None:
        """Add the rows of one step, and send the effect that is being measured."""
        with self._lock:
            self._send_effects(self._effects.add_step(step, rows, time=time.time()))

    def close(self) -> None:
        """The run ends: close what is being measured, with what it has."""
        with self._lock:
            self._send_effects(self._effects.finish(time=time.time()))

    def _note_changes(self, now: float, version: int, step: int) -> None:
        agreed, vectors = self._agreement()
        changes = tuple(
            (fix_id, self._agreed[fix_id], value)
            for fix_id, value in agreed.items()
            if fix_id in self._agreed and self._agreed[fix_id] != value
        )
        if not agreed:
            return
        if changes:
            changed = [self._table.state(fix_id) for fix_id, _, _ in changes]
            since = [engine.since_version for state in changed for engine in state.engines if engine.effective]
            change = Change(
                changes=changes,
                before=self._vectors,
                after=vectors,
                since=min(since, default=version),
                until=max(since, default=version),
                step=step,
                version=max(since, default=version),
                time=now,
                by=", ".join(dict.fromkeys(state.by for state in changed)),
                note=self._head.note if any(state.fix == HEAD for state in changed) else "",
            )
            self._send_effects(self._effects.add_change(change))
        self._agreed, self._vectors = agreed, vectors

    def _agreement(self) -> tuple[dict[str, str], frozenset[Vector]]:
        """The value of every fix and the vectors over the engines that are up; nothing while they differ.

        An engine that is to have a value of its own differs for good, and is no reason to measure nothing.
        """
        engines: dict[str, dict[str, str]] = {}
        own: set[tuple[str, str]] = set()
        for state in self._table.states():
            for engine in state.engines:
                if engine.engine != TRAINER:
                    engines.setdefault(engine.engine, {})[state.fix] = engine.effective
                    own |= {(engine.engine, state.fix)} if engine.wanted else set()
        up = {name: values for name, values in engines.items() if len(values) == len(BY_ID) and all(values.values())}
        agreed: dict[str, str] = {}
        for fix_id in BY_ID:
            values = {found[fix_id] for name, found in up.items() if (name, fix_id) not in own}
            if len(values) > 1 and not all(meets(ON, value) for value in values):
                return {}, frozenset()
            if values:
                agreed[fix_id] = values.pop() if len(values) == 1 else ON
        return agreed, frozenset(vector(found) for found in up.values())

    def _with_trainer(self, seen: Reports) -> dict[str, Sequence[EngineFix]]:
        return {fix: [*engines, *self._head.state()] if fix == HEAD else engines for fix, engines in seen.items()}

    def _send_effects(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._report.send(effect)
            if effect.done:
                self._report.event(
                    "fix.measured", _sentence(effect), step=effect.step, effect=effect.id, version=effect.version
                )


def _sentence(effect: Effect) -> str:
    what = ", ".join(f"{fix} {before} -> {after}" for fix, before, after in effect.changes) or "nothing changed"
    if not effect.measures:
        return f"{what}: {effect.detail}"
    first = effect.measures[0]
    means = f"{what}: {first.metric} {first.before:.3g} -> {first.after:.3g}"
    if not first.unit:
        return f"{means}{f' ({first.note})' if first.note else ''}"
    units = f"{first.units_before} and {plural(first.units_after, first.unit)}"
    return f"{means}, {first.change:+.3g} at the change (95 % {first.low:+.3g} to {first.high:+.3g}, by {units})"
