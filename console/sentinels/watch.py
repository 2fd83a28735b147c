"""The sentinels over one run: rules in, alarms out, each once for an episode.

`look` is fed by whoever keeps the model, after frames were applied, as often as wanted: rules of metrics judge only
the steps that are new since the last look, all others read a handful of states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

from msgspec.structs import replace

from console.sentinels.alarm import Alarm, Turn
from console.sentinels.metric_rules import SeriesWatch
from console.sentinels.rules import Baseline, Engine, Feed, Limit, Rules, Skew, Steps
from console.sentinels.state_rules import EngineWatch, FeedWatch, Found, SkewWatch, StepsWatch
from console.status.link_health import BEHIND_FRAMES, Link
from console.store.model import RunModel

KEPT: Final = 500
"""Episodes that are over and still listed."""
CALM: Final = 2.0
"""Seconds for which a condition must be gone before its alarm is cleared; rules of engines have their own."""
GAP: Final = 5.0
"""Seconds between two looks above which nothing is known of what happened meanwhile."""

Conditions = SkewWatch | EngineWatch | StepsWatch


class Sentinels:
    """Not thread-safe: whoever holds the model's lock may call it."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._series: list[tuple[str, SeriesWatch]] = []
        self._conditions: list[tuple[str, Conditions]] = []
        self._feeds: list[tuple[str, FeedWatch]] = []
        for name, rule in rules:
            match rule:
                case Limit() | Baseline():
                    self._series.append((name, SeriesWatch(rule)))
                case Skew():
                    self._conditions.append((name, SkewWatch(rule)))
                case Engine():
                    self._conditions.append((name, EngineWatch(rule)))
                case Steps():
                    self._conditions.append((name, StepsWatch(rule)))
                case Feed():
                    self._feeds.append((name, FeedWatch(rule)))
        self._standing: dict[tuple[str, str], Alarm] = {}
        self._calm: dict[tuple[str, str], float] = {}
        self._over: deque[Alarm] = deque(maxlen=KEPT)
        self._untold: set[int] = set()
        self._number = 0
        self._looked: float | None = None
        self.revision = 0
        """Rises with every change of what `standing` and `history` say."""

    @property
    def standing(self) -> list[Alarm]:
        """Raised now: errors first, then the newest first."""
        # One call that copies: a screen may ask while the reader's thread is looking.
        return sorted(list(self._standing.values()), key=lambda alarm: (alarm.level != "error", -alarm.number))

    @property
    def history(self) -> list[Alarm]:
        """Cleared ones, newest first, the last KEPT of them."""
        return list(self._over)[::-1]

    def about(self, subjects: Collection[str]) -> list[Alarm]:
        """What was raised on one of these, oldest first: all that stands, and of what is over the last KEPT."""
        found = [alarm for alarm in (*self._over, *self._standing.values()) if alarm.subject in subjects]
        return sorted(found, key=lambda alarm: alarm.number)

    def look(self, model: RunModel, now: float, link: Link) -> list[Alarm]:
        """Take in what is new; return the alarms that were raised or cleared by it, in order.

        `now`: seconds on any clock that runs with the frames: monotonic time of a live view, the hub's of a replay.
        While history is still coming in (`link.behind`) or the hub is silent, only metrics and feed are judged: the
        states of engines are not of now.
        """
        changed: list[Alarm] = []
        for name, series in self._series:
            for turn in series.look(model):
                changed += self._turned(name, turn)
        known = link.state == "live" and link.behind <= BEHIND_FRAMES
        if known and (self._looked is None or now - self._looked > GAP):
            for _, watch in self._conditions:
                if not isinstance(watch, SkewWatch):
                    watch.forget(now)
        if known:
            self._looked = now
        over = model.run is not None and model.run.status in ("finished", "failed")
        for name, watch in self._conditions:
            if over:
                changed += self._judged(name, {}, model, now, calm=0.0, word="the run has ended")
            elif known:
                calm = watch.rule.clear if isinstance(watch, EngineWatch) else CALM
                changed += self._judged(name, watch.look(model, now), model, now, calm)
        for name, feed in self._feeds:
            changed += self._judged(name, feed.look(model, link), model, now, 0.0 if over else CALM)
        return changed

    def tell(self, link: Link) -> list[Alarm]:
        """The alarms that stand and that this has not returned yet, oldest first; none while history comes in.

        For bells and commands: what was raised and cleared in the past of a run wakes nobody.
        """
        if not self._untold or link.behind > BEHIND_FRAMES:
            return []
        told = [alarm for alarm in self._standing.values() if alarm.number in self._untold and not alarm.acknowledged]
        self._untold.clear()
        return sorted(told, key=lambda alarm: alarm.number)

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

    def _turned(self, rule: str, turn: Turn) -> list[Alarm]:
        if turn.raised:
            return [self._raise(rule, turn)]
        cleared = self._clear((rule, turn.subject), turn.step, turn.time, turn.text)
        return [cleared] if cleared is not None else []

    def _judged(
        self, rule: str, found: Found, model: RunModel, now: float, calm: float, word: str = "over"
    ) -> list[Alarm]:
        changed: list[Alarm] = []
        step, time = max(model.step, -1), model.last_time or now
        for subject, wrong in found.items():
            self._calm.pop((rule, subject), None)
            if (rule, subject) not in self._standing:
                changed.append(self._raise(rule, Turn(True, subject, step, wrong.value, wrong.limit, wrong.text, time)))
        for key in [key for key in self._standing if key[0] == rule and key[1] not in found]:
            if now - self._calm.setdefault(key, now) >= calm:
                cleared = self._clear(key, step, time, word)
                changed += [cleared] if cleared is not None else []
        return changed

    def _raise(self, rule: str, turn: Turn) -> Alarm:
        self._number += 1
        alarm = Alarm(
            number=self._number,
            rule=rule,
            level=self.rules.rules[rule].level,
            subject=turn.subject,
            step=turn.step,
            value=turn.value,
            limit=turn.limit,
            text=turn.text,
            time=turn.time,
        )
        self._standing[rule, turn.subject] = alarm
        self._untold.add(alarm.number)
        self.revision += 1
        return alarm

    def _clear(self, key: tuple[str, str], step: int, time: float, text: str) -> Alarm | None:
        self._calm.pop(key, None)
        alarm = self._standing.pop(key, None)
        if alarm is None:
            return None
        self._untold.discard(alarm.number)
        # A time of 0 would read as raised; a producer's clock may stand there.
        over = replace(alarm, cleared_step=step, cleared_time=time or 1.0, cleared_text=text)
        self._over.append(over)
        self.revision += 1
        return over
