"""The tables of a run: which frames make a row of which, and the columns with their kinds. Pure.

A new table is one entry of TABLES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import msgspec

from console.plain import to_json
from driftline.frames import EngineState, Event, FixState, Frame, FrameError, Metrics, RunState, Span, Stamped
from driftline.metrics import METRICS, resolve

Kind = Literal["int", "float", "str", "bool", "time"]
Value = int | float | str | bool | None
Row = dict[str, Value]


class Table(msgspec.Struct, frozen=True):
    """`columns` come first and always; names beyond them, sorted, are of kind `extra`."""

    columns: dict[str, Kind]
    collect: Callable[[Iterable[Stamped]], tuple[list[Row], bool]]
    """Journal in, rows and whether the run calls itself synthetic out."""
    extra: Kind = "float"


def frames_of(stream: Iterable[Stamped]) -> Iterator[tuple[Stamped, Frame]]:
    """Decoded frames; those that a newer producer wrote and this version does not know are left out."""
    for stamped in stream:
        try:
            yield stamped, stamped.frame()
        except FrameError:
            continue


class _Part(msgspec.Struct):
    """What one producer said of one step, in one life of the run."""

    life: int
    row: Row


def steps(stream: Iterable[Stamped]) -> tuple[list[Row], bool]:
    """One row a trainer step, ascending.

    Frames of the same step are put together, a later value of the same name winning. Where a producer comes back to
    a step before its newest and says again what it has said, its run was resumed from a checkpoint: from there on
    what it said of a step before is dropped as a whole, so that no row mixes two lives of the run. (A number that
    only comes late, under a name the step does not have yet, is added to its row.)
    """
    parts: dict[int, dict[str, _Part]] = {}
    newest: dict[str, int] = {}
    lives: dict[str, int] = {}
    synthetic = False
    for stamped, frame in frames_of(stream):
        if isinstance(frame, RunState):
            synthetic = synthetic or frame.synthetic
        if not isinstance(frame, Metrics):
            continue
        producer = stamped.producer
        values: Row = {resolve(name): value for name, value in frame.values.items()}
        # Taken out and put back: the producer that spoke last of a step stands last, so its time and version win.
        part = parts.setdefault(frame.step, {}).pop(producer, None)
        back = frame.step < newest.get(producer, frame.step)
        if back and part is not None and not values.keys().isdisjoint(part.row):
            lives[producer] = lives.get(producer, 0) + 1
            newest[producer] = frame.step
        newest[producer] = max(frame.step, newest.get(producer, frame.step))
        life = lives.get(producer, 0)
        row = part.row if part is not None and part.life == life else {}
        # The keys last, so that a trainer's own metric of such a name cannot take their place.
        row |= values | {"step": frame.step, "time": frame.time, "version": frame.version}
        parts[frame.step][producer] = _Part(life, row)
    rows: list[Row] = []
    for _, step in sorted(parts.items()):
        whole: Row = {}
        for part in step.values():
            whole |= part.row
        rows.append(whole)
    return rows, synthetic


def _each(*kinds: type[Frame], rows: Callable[[Frame], Iterable[Row]]) -> Callable[
    [Iterable[Stamped]], tuple[list[Row], bool]
]:
    def collect(stream: Iterable[Stamped]) -> tuple[list[Row], bool]:
        found: list[Row] = []
        synthetic = False
        for stamped, frame in frames_of(stream):
            if isinstance(frame, RunState):
                synthetic = synthetic or frame.synthetic
            if isinstance(frame, kinds):
                found += [{"seq": stamped.seq, **row} for row in rows(frame)]
        return found, synthetic

    return collect


def _plain(frame: Frame) -> Row:
    return {name: getattr(frame, name) for name in frame.__struct_fields__}


def _event(frame: Frame) -> list[Row]:
    row = _plain(frame)
    row["data"] = to_json(row["data"])
    return [row]


def _fix(frame: Frame) -> list[Row]:
    if not isinstance(frame, FixState):
        return []
    common: Row = {
        "time": frame.time,
        "fix": frame.fix,
        "requested": frame.requested,
        "generation": frame.generation,
        "by": frame.by,
    }
    # One row for each engine's report; a fix that no engine has reported yet still has its wanted value.
    reports: list[Row] = [{name: getattr(one, name) for name in one.__struct_fields__} for one in frame.engines]
    return [common | report for report in reports or [{}]]


def _kinds(struct: type[msgspec.Struct], **others: Kind) -> dict[str, Kind]:
    words: dict[object, Kind] = {int: "int", float: "float", bool: "bool"}
    kinds = {field.name: words.get(field.type, "str") for field in msgspec.structs.fields(struct)}
    return {"seq": "int", **kinds, **others}


TABLES: Final[dict[str, Table]] = {
    "metrics": Table(
        {"step": "int", "time": "time", "version": "int", **{metric.name: "float" for metric in METRICS}}, steps
    ),
    "events": Table(_kinds(Event, time="time"), _each(Event, rows=_event)),
    "spans": Table(_kinds(Span, start="time"), _each(Span, rows=lambda frame: [_plain(frame)])),
    "engines": Table(_kinds(EngineState, time="time"), _each(EngineState, rows=lambda frame: [_plain(frame)])),
    "fixes": Table(
        {
            "seq": "int",
            "time": "time",
            "fix": "str",
            "requested": "str",
            "generation": "int",
            "by": "str",
            "engine": "str",
            "effective": "str",
            "how": "str",
            "since_version": "int",
            "since_step": "int",
            "detail": "str",
        },
        _each(FixState, rows=_fix),
    ),
}
