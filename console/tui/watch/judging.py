"""A run against its reference while it goes on: which runs that is, what they had, and the newest verdict.

One `Judging` belongs to one watch. The app's thread gathers from the model (under the model's lock) and reads the
verdict; loading and judging take long and are done on a worker's thread, which only ever replaces whole values here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import numpy as np
from msgspec.structs import replace

from console.store.model import Mark, RunModel
from console.store.series.series import Points, Series
from console.tui.chart.data import Band, ChartData, Line
from console.tui.paint.theme import Ink
from driftline.rundir import RunDir, RunError

if TYPE_CHECKING:
    from console.parity.cause import Cause
    from console.parity.judge import Comparison, Curve, Judged
    from console.parity.rules import Rules
    from console.parity.runs import Run
    from driftline.config import Config

State = Literal["none", "loading", "ready", "failed"]

PAUSE: Final = 2.0
"""Seconds between two verdicts, at least."""
SHARE: Final = 10
"""A verdict is made anew after so many times as long as the last one took."""


class Verdict(msgspec.Struct, frozen=True):
    """A comparison as of trainer step `step`, with the likely cause of each metric that failed."""

    comparison: Comparison
    causes: dict[str, Cause]
    step: int


class Chosen(msgspec.Struct, frozen=True):
    """The reference as of one choice. `number` counts the choices: what was begun for another one is void."""

    number: int = 0
    names: tuple[str, ...] = ()
    state: State = "none"
    error: str = ""
    runs: tuple[Run, ...] = ()
    rules: Rules | None = None


def last_switch(model: RunModel) -> int | None:
    """The step after the newest switch of a fix that every engine has reported, None where none was switched.

    The step of the switch itself has tokens of both kinds.
    """
    return next((mark.step + 1 for mark in reversed(model.marks) if mark.kind == "fix"), None)


class Judging:
    """Reference and verdict of one run."""

    def __init__(self, run: RunDir | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`run`: the run's directory where that is on this machine; its settings help to name a cause."""
        self._run, self._clock = run, clock
        self.chosen = Chosen()
        self.verdict: Verdict | None = None
        self.start: int | None = None
        """The step from which on the run is judged, as after a switch at the step before; None judges all of it."""
        self._busy = False
        self._next = 0.0
        self._seen: tuple[object, ...] | None = None
        self._drawn: dict[str, Points] = {}
        self._curves: dict[str, tuple[Curve, Points]] = {}
        """Points of the newest verdict's curves, by metric and name, beside the curve that they are made of."""

    # -- the app's thread

    def choose(self, names: tuple[str, ...]) -> int:
        """Take other runs as the reference, none without names; `load` does the rest. Returns the choice's number."""
        number = self.chosen.number + 1
        self.chosen = Chosen(number, names, "loading" if names else "none")
        self.verdict, self._seen, self._next, self._drawn, self._curves = None, None, 0.0, {}, {}
        return number

    def judge_from(self, start: int | None) -> None:
        """Judge the steps from `start` on, or all of them; the verdict there is stands until the new one is made."""
        self.start, self._next = start, 0.0

    def due(self, model: RunModel) -> bool:
        """Whether a new verdict should be made now."""
        if self.chosen.state != "ready" or self._busy or self._clock() < self._next:
            return False
        return self._seen != self._state(model)

    def gather(self, name: str, model: RunModel) -> Run:
        """The input of a verdict about the run, as of now; the model's lock is held. Cut where the reference ends."""
        from console.parity.runs import CorrectionChange, FixChange, Run
        from console.parity.runs import Series as Values

        self._busy, self._seen = True, self._state(model)
        end = max((int(one.steps[-1]) for run in self.chosen.runs for one in run.series.values()), default=-1)
        series = {}
        for metric in model.metrics:
            points = model.metrics.points(metric)
            stop = int(np.searchsorted(points.steps, end, side="right"))
            if stop and metric in self._wanted:
                # A copy: the reader may put a value in between while the worker looks.
                series[metric] = Values(points.steps[:stop].copy(), np.array(points.values[:stop], np.float64))
        changes = tuple(FixChange(*change) for change in model.fix_changes)
        synthetic = model.run is not None and model.run.synthetic
        corrections = tuple(CorrectionChange(*change) for change in model.corrections)
        return Run(name, series, changes, synthetic, corrections=corrections)

    @property
    def _wanted(self) -> frozenset[str]:
        from console.parity import cause

        rules = self.chosen.rules
        own = rules.metrics if rules is not None else {}
        return frozenset({*own, *cause.READ})

    def _state(self, model: RunModel) -> tuple[object, ...]:
        return self.chosen.number, self.start, model.step, len(model.fix_changes), len(model.corrections)

    def behind(self, metric: str, data: ChartData) -> ChartData:
        """A chart with the reference behind: its line, or what several had between them."""
        runs = [run for run in self.chosen.runs if metric in run.series]
        if not runs:
            return data
        if len(runs) == 1:
            own = runs[0].series[metric]
            points = self._points(metric, lambda: Series.from_arrays(own.steps, own.values))
            return replace(data, lines=(*data.lines, Line(points, Ink.REFERENCE, metric, "ref", reference=True)))
        edges = [self._drawn.get(f"{metric} {edge}") for edge in ("low", "high")]
        low, high = edges if all(one is not None for one in edges) else self._between(metric, runs)
        if low is None or high is None or not len(low):
            return data
        return replace(data, bands=(*data.bands, Band(low, high)))

    def _between(self, metric: str, runs: Sequence[Run]) -> tuple[Points, Points]:
        """Lowest and highest of several runs at the steps that all of them have."""
        steps = runs[0].series[metric].steps
        for run in runs[1:]:
            steps = np.intersect1d(steps, run.series[metric].steps, assume_unique=True)
        values = [run.series[metric].at(steps) for run in runs]
        low = self._points(f"{metric} low", lambda: Series.from_arrays(steps, np.fmin.reduce(values)))
        high = self._points(f"{metric} high", lambda: Series.from_arrays(steps, np.fmax.reduce(values)))
        return low, high

    def figure(self, judged: Judged, data: ChartData) -> ChartData:
        """The chart of a judged metric: the band behind, the run's window means before its own values.

        `data` is the chart as the live screen has it; its first line is the run's.
        """
        curve = judged.curve
        if curve is None:
            return self.behind(judged.metric, data)

        def line(name: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Points:
            key = f"{judged.metric} {name}"
            known = self._curves.get(key)
            if known is None or known[0] is not curve:  # of a verdict before
                known = self._curves[key] = curve, Series.from_arrays(curve.steps, values).points()
            return known[1]

        # A band may reach below what the metric can be: the room is for what was.
        least = min(0.0, *(float(np.nanmin(one)) for one in (curve.run, curve.centre) if np.isfinite(one).any()))
        band = Band(line("low", np.maximum(curve.low, least)), line("high", curve.high))
        centre = Line(line("centre", curve.centre), Ink.REFERENCE, judged.metric, "ref", reference=True)
        raw = replace(data.lines[0], ink=Ink.GHOST, short="now")
        mean = Line(line("mean", curve.run), Ink.LINE, judged.metric, "mean")
        marks = [*data.marks]
        start = self.verdict.comparison.start if self.verdict is not None else None
        if start is not None:
            marks.append(Mark(start, "mark", "judged from here"))
        if judged.first is not None:
            marks.append(Mark(judged.first, "mark", "out of the band"))
        if judged.back is not None:
            marks.append(Mark(judged.back, "mark", "back"))
        return replace(data, lines=(centre, raw, mean), bands=(band,), marks=tuple(marks))

    def _points(self, name: str, make: Callable[[], Series]) -> Points:
        """Made once for each name: what is derived from a series is kept with it."""
        if name not in self._drawn:
            self._drawn[name] = make().points()
        return self._drawn[name]

    # -- a worker's thread

    def load(self, number: int) -> None:
        """Open the runs of a choice; what goes wrong is a sentence in `chosen.error`."""
        from console.parity.rules import load
        from console.parity.runs import SourceError, open_run

        chosen = self.chosen
        if chosen.number != number or not chosen.names:
            return
        try:
            runs = tuple(open_run(name) for name in chosen.names)
        except (RunError, SourceError, OSError) as error:
            done = replace(chosen, state="failed", error=str(error))
        else:
            empty = next((run.id for run in runs if not run.series), None)
            if empty is not None:
                done = replace(chosen, state="failed", error=f"run {empty} has no metrics to compare with")
            else:
                done = replace(chosen, state="ready", runs=runs, rules=load())
        if self.chosen.number == number:
            self.chosen = done

    def judge(self, run: Run) -> None:
        """Judge what was gathered."""
        from console.parity.cause import causes
        from console.parity.judge import compare

        chosen, start, started = self.chosen, self.start, self._clock()
        try:
            if chosen.rules is None:
                return
            run = dataclasses.replace(run, config=self._config())
            comparison = compare(chosen.runs, run, chosen.rules, start=start)
            made = Verdict(
                comparison, causes(comparison), max((int(one.steps[-1]) for one in run.series.values()), default=-1)
            )
            if self.chosen.number == chosen.number:
                self.verdict = made
        finally:
            now = self._clock()
            self._next = now + max(PAUSE, SHARE * (now - started))
            self._busy = False

    def _config(self) -> Config | None:
        from driftline.config import ConfigError, load

        if self._run is None:
            return None
        try:
            return load(self._run.config)
        except ConfigError:
            # Of another trainer, or of another version: the verdict does not need it.
            return None
