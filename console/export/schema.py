"""The tables of a run: their columns with kinds and units, in one place, and the functions from frame to rows. Pure.

`STORED` are the tables that follow from single frames, row by row in the order of their numbers. `TABLES` are those
of the user; most are stored ones as they are, and `metrics`, `syncs` and `commands` are derived from
them (`console.export.derived`). (What compaction keeps of a journal's segments is in
`console.recorded.compaction.encode`: a layout from which all of these follow, read by `console.export.compacted`.)

A new table is one entry here. Columns are only ever appended; a removal or a change of meaning raises VERSION.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Final, Literal, get_args, get_origin

import msgspec

from console.formatting import to_json
from driftline.catalog.metrics import METRICS
from driftline.frames import (
    Ack,
    Command,
    Effect,
    EngineState,
    Event,
    FixState,
    Frame,
    RunState,
    Span,
)

VERSION: Final = 1
"""Version of these tables, written into every file as `driftline.tables`."""

Kind = Literal["int", "int32", "float", "float32", "str", "bool", "time"]
"""`time` is a UTC datetime in microseconds; `int` and `float` have 64 bits."""
Value = int | float | str | bool | None
Row = dict[str, Value]


LATEST: Final = 253402300800.0
"""Unix seconds of the year 10000; later times are exported as null, because no other program reads such dates."""


class Column(msgspec.Struct, frozen=True):
    """One column: its kind and its unit ("" for none)."""

    kind: Kind
    unit: str = ""


class Table(msgspec.Struct, frozen=True):
    """A table. `tags` are the frames (their one-letter tags) it is made of, `source` the stored table it comes from.

    `rows` makes the rows of one frame; None for tables of arrays (`console.export.token_rows`) and those put together.
    `open` tables have further columns of kind `float` after these, one for each name that a producer has sent.
    """

    columns: dict[str, Column]
    tags: str
    source: str
    rows: Callable[[Frame], Iterable[Row]] | None = None
    open: bool = False


# Units of fields that go by the same name in several frames.
_UNITS: Final = {
    "time": "UTC", "start": "UTC", "lease_until": "UTC", "deadline": "UTC",
    "seconds": "s", "tokens_per_s": "tokens/s",
    "bytes": "bytes", "in_flight": "sequences", "straddling": "tokens", "running": "requests", "waiting": "requests",
    "kv_use": "fraction", "prefix_hit_rate": "fraction",
    "gpu_memory_used": "bytes", "gpu_memory_total": "bytes", "gpu_use": "fraction",
    "steps_before": "steps", "steps_after": "steps", "tokens_before": "tokens", "tokens_after": "tokens",
}  # fmt: skip
_TIMES: Final = frozenset(name for name, unit in _UNITS.items() if unit == "UTC")


def _columns(struct: type[msgspec.Struct], leave_out: Iterable[str] = ()) -> dict[str, Column]:
    """Columns for the fields of a frame; any other type than number, bool or time is text."""
    kinds: dict[object, Kind] = {int: "int", float: "float", bool: "bool"}
    found = {}
    for field in msgspec.structs.fields(struct):
        if field.name not in leave_out:
            plain = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type  # without its range
            kind: Kind = "time" if field.name in _TIMES else kinds.get(plain, "str")
            found[field.name] = Column(kind, _UNITS.get(field.name, ""))
    return found


_SEQ: Final = {"seq": Column("int")}
_STEP: Final = {"step": Column("int"), "time": Column("time", "UTC"), "version": Column("int")}
_WHERE: Final = {**_SEQ, "step": Column("int"), "version": Column("int"), "time": Column("time", "UTC")}

# `version` is -1 for steps of an imported log without the version of the weights.
_REPORTS: Final = {**_SEQ, "producer": Column("str"), **_STEP}
_TOKENS: Final = {
    **_WHERE,
    "sequence": Column("int32"), "position": Column("int32"), "id": Column("int32"),
    "token_version": Column("int32"), "rollout": Column("float32", "nats"), "trainer": Column("float32", "nats"),
    "engine": Column("str"), "piece": Column("str"),
}  # fmt: skip
_SEQUENCES: Final = {
    **_WHERE,
    "sequence": Column("int32"), "engine": Column("str"), "prompt": Column("str"), "text": Column("str"),
    "reward": Column("float", "reward"), "tokens": Column("int", "tokens"),
    "version_min": Column("int32"), "version_max": Column("int32"),
    "rollout_sum": Column("float", "nats"), "trainer_sum": Column("float", "nats"),
    "abs_diff_mean": Column("float", "nats"), "abs_diff_max": Column("float", "nats"),
}  # fmt: skip
_FIXES: Final = {
    **_SEQ, "time": Column("time", "UTC"), "fix": Column("str"), "requested": Column("str"),
    "generation": Column("int"), "by": Column("str"), "engine": Column("str"), "effective": Column("str"),
    "how": Column("str"), "since_version": Column("int"), "since_step": Column("int"), "detail": Column("str"),
}  # fmt: skip
_EFFECTS: Final = {
    **_SEQ, **_columns(Effect, ("measures",)),
    "metric": Column("str"), "before": Column("float"), "after": Column("float"),
    "low": Column("float"), "high": Column("float"),
    "tokens_before": Column("int", "tokens"), "tokens_after": Column("int", "tokens"),
    "change": Column("float"), "ratio": Column("float"), "ratio_low": Column("float"), "ratio_high": Column("float"),
    "unit": Column("str"), "units_before": Column("int"), "units_after": Column("int"), "note": Column("str"),
}  # fmt: skip
_ORDERS: Final = {
    **_SEQ, "time": Column("time", "UTC"), "id": Column("str"), "verb": Column("str"), "args": Column("str"),
    "issuer": Column("str"), "generation": Column("int"), "deadline": Column("time", "UTC"),
    "state": Column("str"), "detail": Column("str"), "data": Column("str"),
}  # fmt: skip
_SYNCS: Final = {
    "sync": Column("str"), "engine": Column("str"), "step": Column("int"), "start": Column("time", "UTC"),
    "version_before": Column("int"), "version_after": Column("int"),
    **{f"{phase}_s": Column("float", "s") for phase in ("pause", "load", "verify", "reset", "resume", "total")},
    "bytes": Column("int", "bytes"), "in_flight": Column("int", "sequences"), "straddling": Column("int", "tokens"),
    "ok": Column("bool"), "verified": Column("str"), "cache": Column("str"), "detail": Column("str"),
}  # fmt: skip
_COMMANDS: Final = {
    "id": Column("str"), "time": Column("time", "UTC"), "verb": Column("str"), "args": Column("str"),
    "issuer": Column("str"), "generation": Column("int"), "deadline": Column("time", "UTC"),
    "state": Column("str"), "settled": Column("time", "UTC"), "seconds": Column("float", "s"),
    "detail": Column("str"), "data": Column("str"),
}  # fmt: skip
_METRICS: Final = {**_STEP, **{metric.name: Column("float", metric.unit) for metric in METRICS}}


def _plain(frame: Frame) -> Row:
    return {name: getattr(frame, name) for name in frame.__struct_fields__}


def _whole(frame: Frame) -> list[Row]:
    return [_plain(frame)]


def _event(frame: Frame) -> list[Row]:
    row = _plain(frame)
    row["data"] = to_json(row["data"])
    return [row]


def _fix(frame: Frame) -> list[Row]:
    """One row for each engine's report; a fix that no engine has reported yet still has its wanted value."""
    if not isinstance(frame, FixState):
        return []
    common: Row = {name: getattr(frame, name) for name in ("time", "fix", "requested", "generation", "by")}
    reports: list[Row] = [{name: getattr(one, name) for name in one.__struct_fields__} for one in frame.engines]
    return [common | report for report in reports or [{}]]


def _effect(frame: Frame) -> list[Row]:
    """One row for each measure; `changes` reads `fix: before -> after`, joined by semicolons."""
    if not isinstance(frame, Effect):
        return []
    common = _plain(frame) | {"changes": "; ".join(f"{fix}: {old} -> {new}" for fix, old, new in frame.changes)}
    del common["measures"]
    measures: list[Row] = [{name: getattr(one, name) for name in one.__struct_fields__} for one in frame.measures]
    return [common | measure for measure in measures or [{}]]


def _order(frame: Frame) -> list[Row]:
    """A command as it was given, or one of the answers to it."""
    match frame:
        case Command():
            return [_plain(frame) | {"args": to_json(frame.args), "deadline": frame.deadline or None}]
        case Ack():
            return [_plain(frame) | {"data": to_json(frame.data)}]
        case _:
            return []


def _stored(name: str, columns: dict[str, Column], tags: str, rows: Callable[[Frame], Iterable[Row]] | None) -> Table:
    return Table(columns, tags, name, rows)


STORED: Final[dict[str, Table]] = {
    # One row for each Metrics frame, under the names of the catalogue; `metrics` puts a step's together.
    "reports": Table(_REPORTS, "m", "reports", open=True),
    "tokens": _stored("tokens", _TOKENS, "t", None),
    "sequences": _stored("sequences", _SEQUENCES, "t", None),
    "spans": _stored("spans", {**_SEQ, **_columns(Span)}, "p", _whole),
    "fixes": _stored("fixes", _FIXES, "f", _fix),
    "effects": _stored("effects", _EFFECTS, "x", _effect),
    "events": _stored("events", {**_SEQ, **_columns(Event)}, "e", _event),
    "orders": _stored("orders", _ORDERS, "ca", _order),
    "engines": _stored("engines", {**_SEQ, **_columns(EngineState)}, "g", _whole),
    "states": _stored("states", {**_SEQ, **_columns(RunState)}, "r", _whole),
}
"""Tables of single frames, each with the frame's number `seq`."""

TABLES: Final[dict[str, Table]] = {
    "metrics": Table(_METRICS, "m", "reports", open=True),
    "tokens": STORED["tokens"],
    "sequences": STORED["sequences"],
    "syncs": Table(_SYNCS, "p", "spans"),
    "spans": STORED["spans"],
    "fixes": STORED["fixes"],
    "effects": STORED["effects"],
    "events": STORED["events"],
    "commands": Table(_COMMANDS, "ca", "orders"),
    "engines": STORED["engines"],
    "states": STORED["states"],
}
"""The tables that `driftline export` and `driftline query` know."""
