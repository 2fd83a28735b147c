"""A run for the verdict: curves by metric and changes of fixes, from a run directory or a Parquet table."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from console.recorded.frames import damaged, frames, unreadable
from console.recorded.metric_columns import Column, columns
from console.store.load import portions
from driftline.catalog.corrections import OFF
from driftline.catalog.metrics import resolve
from driftline.config import Config, ConfigError, load
from driftline.frames import FixState, Frame, FrameError, Metrics, RunState, Stamped
from driftline.journal.holes import lacks
from driftline.journal.records import Damage, kind
from driftline.rundir import RunDir, RunError, find

KEYS: Final = frozenset({"step", "time", "version", "synthetic"})


@dataclass(frozen=True)
class Series:
    """One metric: `steps` ascending without repetition (n, int64), `values` (n, float64), NaN where it was NaN."""

    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def at(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The values at some of the steps."""
        return self.values[np.searchsorted(self.steps, steps)]


@dataclass(frozen=True)
class FixChange:
    """From trainer step `step` on the whole pool reported `value` of a fix ("mixed": engines differ, "": not known)."""

    step: int
    fix: str
    value: str


@dataclass(frozen=True)
class CorrectionChange:
    """From trainer step `step` on the objective had the correction `value` (`driftline.catalog.corrections`)."""

    step: int
    value: str


@dataclass(frozen=True)
class Corrected:
    """A correction of the objective in the trainer's steps `first` to `last`; None: to the run's end."""

    value: str
    first: int
    last: int | None


@dataclass(frozen=True)
class Run:
    """One run. `fixes` is empty and `config` None where the source does not have them (a table, another trainer)."""

    id: str
    series: dict[str, Series]
    fixes: tuple[FixChange, ...] = ()
    synthetic: bool = False
    corrections: tuple[CorrectionChange, ...] = ()
    config: Config | None = field(default=None, compare=False)
    missing: tuple[str, ...] = field(default=(), compare=False)
    """What its journal lacks, in clauses."""

    def fixes_at(self, step: int) -> dict[str, str]:
        """The value of each fix at a step; one that was first reported later has that value."""
        state: dict[str, str] = {}
        for change in self.fixes:
            if change.step <= step or change.fix not in state:
                state[change.fix] = change.value
        return state

    def corrected(self, start: int | None, until: int | None) -> list[Corrected]:
        """The corrections that were on in the steps `start` to `until`, both included; None: no such end."""
        found = []
        ends = [change.step - 1 for change in self.corrections[1:]]
        for change, last in zip_longest(self.corrections, ends):
            begins = max(change.step, start or 0)
            begun = until is None or begins <= until
            if change.value != OFF and begun and (last is None or begins <= last):
                found.append(Corrected(change.value, change.step, last))
        return found


class SourceError(RuntimeError):
    """A file that is not a run; the message is one sentence."""


def open_run(name: str) -> Run:
    """The run of an id, a run directory or a Parquet file of the metrics table. Raises RunError, SourceError."""
    path = Path(name)
    if path.suffix == ".parquet":
        return read_table(path)
    try:
        directory = find(name)
    except RunError as error:
        raise RunError(f"{error}; a metrics table may be named as FILE.parquet") from error
    return read_run(directory)


def read_run(run: RunDir) -> Run:
    """A run, live or ended, from its journal, or from the compacted tables for the part that it no longer has."""
    try:
        config = load(run.config)
    except ConfigError:
        # Of a user's own trainer, or of another version: the verdict does not need it.
        config = None
    try:
        found = _read_in_bulk(run, config)
        if found is None:
            found = run_from_frames(run.id, (one for one in frames(run) if kind(one.body) != b"t"), config)
    except unreadable() as error:
        raise SourceError(damaged(run)) from error
    return replace(found, missing=tuple(lacks(run)))


def _read_in_bulk(run: RunDir, config: Config | None) -> Run | None:
    """As `run_from_frames`, but in bulk, for a run with one report a step in ascending order; None for another run."""
    by_name: dict[str, list[Column]] = {}
    history = _StateHistory()
    at, last = 0, None
    for portion in portions(run, Damage()):
        places = steps = np.empty(0, np.int64)
        if portion.stretches:
            places = np.concatenate([one.places for one in portion.stretches])
            order = np.argsort(places)
            places, steps = places[order], np.concatenate([one.steps for one in portion.stretches])[order]
            if (steps[1:] <= steps[:-1]).any() or (last is not None and steps[0] <= last):
                return None
            for name, column in columns(portion.stretches).items():
                by_name.setdefault(name, []).append(column)
        for stamped in portion.others:
            before = int(np.searchsorted(places, stamped.seq))
            try:
                history.add(stamped.frame(), int(steps[before - 1]) if before else at)
            except FrameError:
                continue
        if len(steps):
            at = last = int(steps[-1])
    series = {
        name: Series(np.concatenate([one.steps for one in some]), np.concatenate([one.values for one in some]))
        for name, some in by_name.items()
    }
    return history.run(run.id, series, config)


class _Points:
    """Values by step, steps ascending; 16 bytes each, so that a run of 10^6 steps is cheap."""

    def __init__(self) -> None:
        self.steps, self.values = array("q"), array("d")

    def has(self, step: int) -> bool:
        at = bisect_left(self.steps, step)
        return at < len(self.steps) and self.steps[at] == step

    def put(self, step: int, value: float) -> None:
        at = bisect_left(self.steps, step)
        if at < len(self.steps) and self.steps[at] == step:
            self.values[at] = value
        else:
            self.steps.insert(at, step)
            self.values.insert(at, value)

    def cut(self, step: int) -> None:
        """Forget `step` and everything after it."""
        at = bisect_left(self.steps, step)
        del self.steps[at:], self.values[at:]

    def series(self) -> Series:
        return Series(np.array(self.steps, np.int64), np.array(self.values, np.float64))


class _StateHistory:
    """Changes of fixes and corrections over a run."""

    def __init__(self) -> None:
        self._changes: list[FixChange] = []
        self._corrections: list[CorrectionChange] = []
        self._values: dict[str, str] = {}
        self._synthetic = False

    def add(self, frame: Frame, at: int) -> None:
        """Add a frame that came after the metrics of step `at`."""
        match frame:
            case FixState() if self._values.get(frame.fix) != frame.effective:
                self._values[frame.fix] = frame.effective
                self._changes.append(FixChange(at, frame.fix, frame.effective))
            case RunState():
                self._synthetic = self._synthetic or frame.synthetic
                known = self._corrections[-1].value if self._corrections else OFF
                if frame.correction and frame.correction != known:
                    self._corrections.append(CorrectionChange(max(frame.correction_since, 0), frame.correction))
            case _:
                pass

    def cut(self, step: int) -> None:
        """Forget the changes after `step`."""
        self._changes = [change for change in self._changes if change.step <= step]
        self._corrections = [change for change in self._corrections if change.step <= step]

    def run(self, name: str, series: dict[str, Series], config: Config | None) -> Run:
        return Run(name, series, tuple(self._changes), self._synthetic, tuple(self._corrections), config)


def run_from_frames(name: str, stream: Iterable[Stamped], config: Config | None = None) -> Run:
    """Fold frames, oldest first.

    A later value of the same step and name wins. A producer that reports a name of an earlier step again was
    resumed from a checkpoint: its reports of that step and later ones are of another life and are dropped.
    """
    by_producer: dict[str, dict[str, _Points]] = {}
    newest: dict[str, int] = {}
    history, at = _StateHistory(), 0
    for stamped in stream:
        try:
            frame = stamped.frame()
        except FrameError:
            # Of a newer version, which this one cannot judge.
            continue
        match frame:
            case Metrics():
                own = by_producer.setdefault(stamped.producer, {})
                named = {resolve(key): value for key, value in frame.values.items()}
                earlier = frame.step < newest.get(stamped.producer, frame.step)
                if earlier and any(key in own and own[key].has(frame.step) for key in named):
                    for points in own.values():
                        points.cut(frame.step)
                    history.cut(frame.step)
                newest[stamped.producer] = at = frame.step
                for key, value in named.items():
                    own.setdefault(key, _Points()).put(frame.step, value)
            case _:
                history.add(frame, at)
    merged: dict[str, _Points] = {}
    for own in by_producer.values():
        for key, points in own.items():
            known = merged.setdefault(key, points)
            if known is not points:
                # Two producers of one metric: the later one wins.
                for step, value in zip(points.steps, points.values, strict=True):
                    known.put(step, value)
    series = {key: points.series() for key, points in merged.items() if points.steps}
    return history.run(name, series, config)


def read_table(path: Path) -> Run:
    """A run from an exported `metrics` table: a column `step` and one a metric, under any framework's names."""
    import polars as pl

    if not path.is_file():
        raise SourceError(f"{path}: there is no such file")
    try:
        table = pl.read_parquet(path, glob=False, hive_partitioning=False)
        metadata = pl.read_parquet_metadata(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"{path}: not a Parquet file that can be read: {error}") from error
    if "step" not in table.columns or not table["step"].dtype.is_integer():
        raise SourceError(f"{path}: no column 'step' of whole numbers; a run's metrics table has one")
    table = table.unique("step", keep="last").sort("step")
    series = {}
    for name in table.columns:
        if name in KEYS or not table[name].dtype.is_numeric():
            continue
        known = table.select("step", name).drop_nulls()
        if known.height:
            series[resolve(name)] = Series(
                known["step"].cast(pl.Int64).to_numpy(), known[name].cast(pl.Float64).to_numpy()
            )
    return Run(
        metadata.get("driftline.run", path.stem),
        series,
        synthetic=metadata.get("driftline.synthetic") == "true",
        missing=_missing(metadata.get("driftline.missing", "")),
    )


def _missing(text: str) -> tuple[str, ...]:
    """What an exported table says of the journal that it is from."""
    try:
        return tuple(msgspec.json.decode(text, type=list[str])) if text else ()
    except msgspec.MsgspecError:
        return ()
