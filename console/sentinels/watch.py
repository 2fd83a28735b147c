"""The sentinels over one run: rules in, alarms out, each once for an episode.

`Sentinels.update` is called by the owner of the model after frames were applied, at any rate: rules of metrics judge
only the steps that are new since the last update, all others read a few states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace

from console.sentinels.alarm import Alarm, Transition
from console.sentinels.episodes import Episodes, Member
from console.sentinels.kinds import Baseline, Engine, Feed, Limit, Missing, Skew, Steps
from console.sentinels.metric_rules import SeriesWatch
from console.sentinels.missing import MissingWatch
from console.sentinels.rules import Rules
from console.sentinels.state_rules import EngineWatch, FeedWatch, Found, SkewWatch, StepsWatch
from console.sentinels.votes import StepWatch
from console.status.link_health import BEHIND_FRAMES, Link, over
from console.store.model import RunModel
from driftline.catalog.metrics import METRICS, resolve

KEPT: Final = 500
"""Ended episodes that are still listed."""
CALM: Final = 2.0
"""Seconds for which a condition must be gone before its alarm is cleared; rules of engines have their own."""
GAP: Final = 5.0
"""Seconds between two updates above which the time between them is not judged."""

Conditions = SkewWatch | EngineWatch | StepsWatch


def missing_metrics(rules: Rules, rule: Missing) -> list[tuple[str, bool]]:
    """The metrics that a rule for missing ones watches, and whether NaN counts: a limit on them tells of it itself."""
    limited = {resolve(one.metric) for _, one in rules if isinstance(one, Limit)}
    judged = [resolve(one.metric) for _, one in rules if isinstance(one, (Limit, Baseline))]
    published = [one.name for one in METRICS if one.warn is not None or one.alarm is not None]
    names = [resolve(name) for name in rule.metrics] or [*judged, *published]
    return [(name, name not in limited) for name in dict.fromkeys(names)]


class Sentinels:
    """Not thread-safe: callers hold the model's lock."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._series: list[StepWatch] = []
        members: list[Member] = []
        self._conditions: list[tuple[str, Conditions]] = []
        self._feeds: list[tuple[str, FeedWatch]] = []
        for name, rule in rules:
            match rule:
                case Limit() | Baseline():
                    self._series.append(SeriesWatch(rule))
                    members.append(Member(name, rule.episode or name, rule.level))
                case Missing():
                    for metric, nan_counts in missing_metrics(rules, rule):
                        self._series.append(MissingWatch(rule, metric, nan_counts=nan_counts))
                        # What one part of a trainer reports tends to end together: one alarm for each family of names.
                        family = metric.partition("/")[0]
                        members.append(Member(name, f"{rule.episode or name} {family}", rule.level))
                case Skew():
                    self._conditions.append((name, SkewWatch(rule)))
                case Engine():
                    self._conditions.append((name, EngineWatch(rule)))
                case Steps():
                    self._conditions.append((name, StepsWatch(rule)))
                case Feed():
                    self._feeds.append((name, FeedWatch(rule)))
        self._episodes = Episodes(members)
        self._standing: dict[tuple[str, str], Alarm] = {}
        self._calm: dict[tuple[str, str], float] = {}
        self._over: deque[Alarm] = deque(maxlen=KEPT)
        self._unreported: set[int] = set()
        self._number = 0
        self._last_update: float | None = None
        self.revision = 0
        """Rises with every change of `standing` and `history`."""

    @property
    def standing(self) -> list[Alarm]:
        """Raised now: errors first, then the newest first."""
        # One call that copies: a screen may read this while the reader's thread updates.
        return sorted(list(self._standing.values()), key=lambda alarm: (alarm.level != "error", -alarm.number))

    @property
    def history(self) -> list[Alarm]:
        """Cleared ones, newest first, the last KEPT of them."""
        return list(self._over)[::-1]

    def alarms_on(self, subjects: Collection[str]) -> list[Alarm]:
        """Alarms on these subjects, oldest first: all that stand, and the last KEPT that are over."""
        found = [alarm for alarm in (*self._over, *self._standing.values()) if alarm.subject in subjects]
        return sorted(found, key=lambda alarm: alarm.number)

    # A trainer may report numbers of any size: a difference of two of 1e308 is infinite, and no limit holds it.
    @np.errstate(over="ignore", invalid="ignore")
    def update(self, model: RunModel, now: float, link: Link) -> list[Alarm]:
        """Judge the new frames; return the alarms that were raised or cleared by them, in order.

        `now`: seconds on any clock that runs with the frames: monotonic time of a live view, the hub's of a replay.
        While history is still coming in (`link.behind`) or the hub is silent, only metrics and feed are judged: the
        states of engines are old.
        """
        changed: list[Alarm] = []
        transitions = [(i, one) for i, series in enumerate(self._series) for one in series.update(model)]
        for change in self._episodes.apply(transitions):
            changed += self._apply_transition(change.owner.rule, change.transition)
        known = link.state == "live" and link.behind <= BEHIND_FRAMES
        if known and (self._last_update is None or now - self._last_update > GAP):
            for _, watch in self._conditions:
                if not isinstance(watch, SkewWatch):
                    watch.restart_timers(now)
        if known:
            self._last_update = now
        run_over = over(model.run)
        for name, watch in self._conditions:
            if run_over:
                changed += self._apply_condition(name, {}, model, now, calm=0.0, word="the run has ended")
            elif known:
                calm = watch.rule.clear if isinstance(watch, EngineWatch) else CALM
                changed += self._apply_condition(name, watch.update(model, now), model, now, calm)
        for name, feed in self._feeds:
            changed += self._apply_condition(name, feed.update(model, link), model, now, 0.0 if run_over else CALM)
        return changed

    def take_new_alarms(self, link: Link) -> list[Alarm]:
        """The standing alarms that this has not returned yet, oldest first; none while history comes in.

        For bells and commands: alarms raised and cleared in the past of a run are not reported.
        """
        if not self._unreported or link.behind > BEHIND_FRAMES:
            return []
        new_alarms = [
            alarm for alarm in self._standing.values() if alarm.number in self._unreported and not alarm.acknowledged
        ]
        self._unreported.clear()
        return sorted(new_alarms, key=lambda alarm: alarm.number)

    def acknowledge(self, numbers: Sequence[int] | None = None) -> int:
        """Mark standing alarms, all of them without `numbers`, as seen; return how many that changes."""
        count = 0
        for key, alarm in self._standing.items():
            if not alarm.acknowledged and (numbers is None or alarm.number in numbers):
                self._standing[key] = replace(alarm, acknowledged=True)
                count += 1
        self.revision += count > 0
        return count

    # -- episodes

    def _apply_transition(self, rule: str, transition: Transition) -> list[Alarm]:
        if transition.raised:
            return [self._raise(rule, transition)]
        cleared = self._clear((rule, transition.subject), transition.step, transition.time, transition.text)
        return [cleared] if cleared is not None else []

    def _apply_condition(
        self, rule: str, found: Found, model: RunModel, now: float, calm: float, word: str = "over"
    ) -> list[Alarm]:
        changed: list[Alarm] = []
        step, time = max(model.step, -1), model.last_time or now
        for subject, wrong in found.items():
            self._calm.pop((rule, subject), None)
            if (rule, subject) not in self._standing:
                changed.append(
                    self._raise(rule, Transition(True, subject, step, wrong.value, wrong.limit, wrong.text, time))
                )
        for key in [key for key in self._standing if key[0] == rule and key[1] not in found]:
            if now - self._calm.setdefault(key, now) >= calm:
                cleared = self._clear(key, step, time, word)
                changed += [cleared] if cleared is not None else []
        return changed

    def _raise(self, rule: str, transition: Transition) -> Alarm:
        self._number += 1
        alarm = Alarm(
            number=self._number,
            rule=rule,
            level=self.rules.rules[rule].level,
            subject=transition.subject,
            step=transition.step,
            value=transition.value,
            limit=transition.limit,
            text=transition.text,
            time=transition.time,
        )
        self._standing[rule, transition.subject] = alarm
        self._unreported.add(alarm.number)
        self.revision += 1
        return alarm

    def _clear(self, key: tuple[str, str], step: int, time: float, text: str) -> Alarm | None:
        self._calm.pop(key, None)
        alarm = self._standing.pop(key, None)
        if alarm is None:
            return None
        self._unreported.discard(alarm.number)
        # A time of 0 would read as raised; a producer's clock may stand there.
        over = replace(alarm, cleared_step=step, cleared_time=time or 1.0, cleared_text=text)
        self._over.append(over)
        self.revision += 1
        return over
