"""Rules of engines, steps and feed: states that last, judged at each update.

Each watch returns what is wrong now, by subject, and keeps how long it has been so; `watch` makes alarms of it.
All durations are on the clock of `now`.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from console.sentinels.alarm import seconds
from console.sentinels.baseline import medians
from console.sentinels.kinds import Engine, Feed, Skew, Steps
from console.status.link_health import Link, ended
from console.store.model import RunModel
from driftline.frames import EngineState, Phase

SERVING: Final[frozenset[Phase]] = frozenset({"running", "paused", "syncing"})
TOPS: Final = 64
"""Versions of the pool that are remembered."""
STEPS: Final = 20
"""Newest steps whose median duration is the usual one."""


class Wrong(msgspec.Struct, frozen=True):
    """A condition that is broken for one subject now."""

    value: float
    limit: float
    text: str


Found = dict[str, Wrong]


class SkewWatch:
    """Counts the syncs that an engine has missed: the versions of the pool newer than its own."""

    def __init__(self, rule: Skew) -> None:
        self.rule = rule
        self._tops: list[int] = []
        self._since: dict[str, float] = {}

    def update(self, model: RunModel, now: float) -> Found:
        """The engines that have been too far behind for long enough."""
        serving = {name: engine for name, engine in model.engines.items() if engine.phase in SERVING}
        top = max((engine.version for engine in serving.values()), default=-1)
        if top >= 0 and (not self._tops or top > self._tops[-1]):
            self._tops = [*self._tops, top][-TOPS:]
        elif self._tops and top < self._tops[-1]:
            self._tops = [top] if top >= 0 else []  # the run went on from a checkpoint
        found: Found = {}
        for name, engine in serving.items():
            missed = sum(version > engine.version for version in self._tops)
            if missed <= self.rule.syncs:
                self._since.pop(name, None)
                continue
            if now - self._since.setdefault(name, now) >= self.rule.seconds:
                text = f"{name} serves v{engine.version} while the pool is at v{top}, {missed} syncs behind"
                found[name] = Wrong(missed, self.rule.syncs, text)
        for name in self._since.keys() - serving.keys():
            del self._since[name]
        return found


class EngineWatch:
    """The times of each engine's last report, last token, and entry into its phase."""

    def __init__(self, rule: Engine) -> None:
        self.rule = rule
        self._seen: dict[str, tuple[EngineState, float]] = {}
        self._phase: dict[str, tuple[str, float]] = {}
        self._token: dict[str, float] = {}

    def restart_timers(self, now: float) -> None:
        """Count all silence from now: no report could arrive until now."""
        self._seen = {name: (state, now) for name, (state, _) in self._seen.items()}
        self._phase = {name: (phase, now) for name, (phase, _) in self._phase.items()}
        self._token = dict.fromkeys(self._token, now)

    def update(self, model: RunModel, now: float) -> Found:
        """The engines with a problem, each with its worst one."""
        found: Found = {}
        for name, engine in model.engines.items():
            before = self._seen.get(name)
            if before is None or before[0] is not engine:
                self._seen[name] = (engine, now)
            phase = self._phase.get(name)
            if phase is None or phase[0] != engine.phase:
                self._phase[name] = (engine.phase, now)
            asked = engine.phase == "running" and engine.running + engine.waiting > 0
            if not asked or engine.tokens_per_s > 0 or name not in self._token:
                self._token[name] = now
            wrong = self._wrong(engine, now)
            if wrong is not None:
                found[name] = wrong
        return found

    def _wrong(self, engine: EngineState, now: float) -> Wrong | None:
        rule, name = self.rule, engine.engine
        why = f": {engine.detail}" if engine.detail else ""
        in_phase = now - self._phase[name][1]
        if engine.phase == "dead":
            return Wrong(in_phase, 0.0, f"{name} is dead{why}")
        silent = now - self._seen[name][1]
        if silent >= rule.silent and engine.phase in SERVING:  # an engine that loads its model cannot report meanwhile
            return Wrong(silent, rule.silent, f"{name} silent for {seconds(silent)}, {engine.phase} before")
        if engine.phase == "syncing" and in_phase >= rule.syncing:
            return Wrong(in_phase, rule.syncing, f"{name} in one weight sync for {seconds(in_phase)}{why}")
        if engine.phase not in SERVING and in_phase >= rule.starting:
            return Wrong(in_phase, rule.starting, f"{name} {engine.phase} for {seconds(in_phase)}{why}")
        idle = now - self._token[name]
        if idle >= rule.no_tokens:
            held = engine.running + engine.waiting
            return Wrong(idle, rule.no_tokens, f"{name} no token for {seconds(idle)} with {held} requests")
        return None


class StepsWatch:
    """The time of the newest step, and the usual duration of one."""

    def __init__(self, rule: Steps) -> None:
        self.rule = rule
        self._step = -1
        self._at = 0.0

    def restart_timers(self, now: float) -> None:
        """Count from now."""
        self._at = now

    def update(self, model: RunModel, now: float) -> Found:
        """One entry, "", when the next step is overdue; nothing before three steps are known."""
        ruler = model.metrics.clock.ruler("time")
        step = int(ruler.steps[-1]) if ruler is not None else -1
        running = model.run is not None and model.run.status == "running"
        if step != self._step or not running:
            self._step, self._at = step, now
            return {}
        waited = now - self._at
        if ruler is None or len(ruler.steps) < 3 or waited < self.rule.seconds:
            return {}
        took = np.diff(ruler.places[-STEPS - 1 :]) / np.diff(ruler.steps[-STEPS - 1 :])
        usual = float(medians(took))
        limit = max(self.rule.seconds, self.rule.factor * usual)
        if waited < limit:
            return {}
        return {"": Wrong(waited, limit, f"no step for {seconds(waited)}; a step usually takes {usual:.2g} s")}


class FeedWatch:
    """Checks how long the hub has been silent."""

    def __init__(self, rule: Feed) -> None:
        self.rule = rule

    def update(self, model: RunModel, link: Link) -> Found:
        """One entry, "", while the feed is stale and the run has not ended."""
        if ended(model.run, link) or not link.heard:
            return {}
        if link.gone or link.age >= self.rule.seconds:
            text = "the hub's process has ended" if link.gone else f"the hub has been silent for {seconds(link.age)}"
            return {"": Wrong(link.age, self.rule.seconds, text)}
        return {}
