"""Sentinels: rules that watch a run and raise an alarm once for each episode.

`kinds` has their types, `rules` reads them (TOML, `rules.toml` is the default), `Sentinels` in `watch` applies them to
a `RunModel` as it grows, `episodes` makes one alarm of what breaks together, `notify` reports alarms to a person or a
program. What each rule means and where its limits come from: docs/sentinels.md. No screen, no socket, no clock of its
own: live view, `driftline watch`, a replay and the tests get the same alarms from the same frames.

Two families. *Series* rules judge the steps of a metric, one after the other, in the order of the steps; nothing in
them depends on how frames were batched. *Condition* rules judge the state of engines and feed over time, at each
update. A rule is raised when it is broken for long enough, and cleared when all has been calm for long enough beyond an
easier limit, so that a value that varies around its limit makes one alarm and not fifty.
"""

from __future__ import annotations

from console.sentinels.alarm import Alarm
from console.sentinels.rules import Rules, RulesError, load
from console.sentinels.watch import Sentinels

__all__ = ["Alarm", "Rules", "RulesError", "Sentinels", "load"]
