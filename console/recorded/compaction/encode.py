"""Frames as columns of flat tables, in batches of bounded size. Pure; what writes them is `compact.py`.

Every frame goes to exactly one table, if it comes back from there byte for byte (`console.recorded.compaction.decode`);
frames without a table of their own, frames that do not fit, and those of a newer version that this one does not know
go to `rest` with the body as it was journaled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeGuard

import numpy as np

from console.formatting import to_json
from console.recorded.compaction import wide
from console.recorded.compaction.decode import faithful
from driftline.frames import Event, FixState, Frame, FrameError, Metrics, Span, Stamped, Tokens, floats, ints
from driftline.journal.journal import kind

BATCH_ROWS: Final = 100_000

_PLACE: Final = {"seq": "int64", "hub_time": "float64", "producer": "string"}
COLUMNS: Final[dict[str, dict[str, str]]] = {
    "metrics": _PLACE
    | {"step": "int64", "version": "int64", "time": "float64", "name": "string", "value": "float64", "label": "string"},
    "events": _PLACE
    | {"time": "float64", "level": "string", "kind": "string", "text": "string", "step": "int64", "data": "string"},
    "spans": _PLACE
    | {
        "sync": "string", "engine": "string", "phase": "string", "start": "float64", "seconds": "float64",
        "version_before": "int64", "version_after": "int64", "step": "int64", "bytes": "int64", "in_flight": "int64",
        "ok": "bool_", "detail": "string", "straddling": "int64", "result": "string",
    },
    "fixes": _PLACE
    | {
        "time": "float64", "fix": "string", "requested": "string", "generation": "int64", "by": "string",
        "how": "string", "detail": "string", "engine": "string", "effective": "string", "engine_how": "string",
        "since_version": "int64", "since_step": "int64", "engine_detail": "string",
    },
    "tokens": _PLACE
    | {
        "step": "int64", "version": "int64", "time": "float64", "id": "int32", "sequence": "int32",
        "position": "int32", "token_version": "int32", "rollout": "float32", "trainer": "float32",
        "engine": "string", "prompt": "string", "reward": "float64", "piece": "string",
    },
    "rest": _PLACE | {"kind": "string", "body": "binary"},
    wide.TABLE: wide.COLUMNS,
}  # fmt: skip
"""Tables with their columns, by the names of pyarrow's types; `compaction.wide` has one for each name besides."""


class Batch(NamedTuple):
    """Some rows of one table; `columns` are arrays or lists of one length, `missing` masks of rows without a value."""

    table: str
    columns: dict[str, Any]
    missing: Mapping[str, np.ndarray[Any, Any]] = MappingProxyType({})

    @property
    def kinds(self) -> dict[str, str]:
        """The type of each column, by pyarrow's names; the same for every batch of a table of one segment."""
        known = COLUMNS[self.table]
        return {name: known.get(name, "float64") for name in self.columns}


def batches(stream: Iterable[Stamped]) -> Iterator[Batch]:
    """The tables of a stream of frames, each in the order of the stream."""
    open_rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
    tokens: list[dict[str, Any]] = []
    reports = wide.Wide()
    for stamped in stream:
        place = (stamped.seq, stamped.time, stamped.producer)
        try:
            frame: Frame | None = stamped.frame()
        except FrameError:
            frame = None
        if frame is not None and not faithful(stamped, frame, to_json(frame.data) if isinstance(frame, Event) else ""):
            frame = None
        if isinstance(frame, Tokens) and _fits((frame.step, frame.version)):
            tokens.append(_tokens(place, frame))
            if sum(len(one["id"]) for one in tokens) >= BATCH_ROWS:
                yield _joined(tokens)
                tokens = []
            continue
        if _has_numbers(frame) and reports.add(*place, frame):
            continue
        table, rows = _rows(stamped, frame)
        if not all(map(_fits, rows)):
            table, rows = _rows(stamped, None)
        open_rows[table] += [place + row for row in rows]
        if len(open_rows[table]) >= BATCH_ROWS:
            yield _transposed(table, open_rows[table])
            open_rows[table] = []
    if tokens:
        yield _joined(tokens)
    for table, rows in open_rows.items():
        if rows:
            yield _transposed(table, rows)
    for part in reports.parts():
        yield Batch(wide.TABLE, part.columns, part.missing)


def _has_numbers(frame: Frame | None) -> TypeGuard[Metrics]:
    """Whether it is a frame with numbers in it, of a step that a column can hold."""
    return isinstance(frame, Metrics) and bool(frame.values) and _fits((frame.step, frame.version))


def _rows(stamped: Stamped, frame: Frame | None) -> tuple[str, list[tuple[Any, ...]]]:
    match frame:
        case Metrics(step=step, version=version, time=time, values=values, labels=labels) if values:
            names = values | dict.fromkeys(sorted(labels.keys() - values.keys()))  # a label may come without a number
            return "metrics", [(step, version, time, name, value, labels.get(name)) for name, value in names.items()]
        case Event():
            return "events", [(frame.time, frame.level, frame.kind, frame.text, frame.step, to_json(frame.data))]
        case Span():
            return "spans", [tuple(getattr(frame, name) for name in frame.__struct_fields__)]
        case FixState() if not any(one.wanted for one in frame.engines):  # which has no column
            common = (frame.time, frame.fix, frame.requested, frame.generation, frame.by, frame.how, frame.detail)
            reports: list[tuple[Any, ...]] = [
                (one.engine, one.effective, one.how, one.since_version, one.since_step, one.detail)
                for one in frame.engines
            ]
            return "fixes", [common + report for report in reports or [(None,) * 6]]
        case _:
            return "rest", [(kind(stamped.body).decode("ascii", "replace"), bytes(stamped.body))]


def _fits(row: Iterable[Any]) -> bool:
    """False for integers that a 64-bit column cannot hold, which no well-behaved producer sends."""
    return all(-(2**63) <= item < 2**63 for item in row if type(item) is int)


def _transposed(table: str, rows: list[tuple[Any, ...]]) -> Batch:
    return Batch(table, dict(zip(COLUMNS[table], map(list, zip(*rows, strict=True)), strict=True)))


def _tokens(place: tuple[Any, ...], frame: Tokens) -> dict[str, Any]:
    sequence = ints(frame.seq)
    whole = dict(zip(_PLACE, place, strict=True)) | {"step": frame.step, "version": frame.version, "time": frame.time}
    return {
        **{name: [value] * frame.n for name, value in whole.items()},
        "id": ints(frame.ids),
        "sequence": sequence,
        "position": ints(frame.position),
        "token_version": ints(frame.token_version),
        "rollout": floats(frame.rollout),
        "trainer": floats(frame.trainer),
        "engine": _per_token(frame.engines, sequence),
        "prompt": _per_token(frame.prompts, sequence),
        "reward": _per_token(frame.rewards, sequence),
        "piece": list(frame.pieces) if len(frame.pieces) == frame.n else [None] * frame.n,
    }


def _per_token(values: tuple[Any, ...], sequence: np.ndarray[Any, Any]) -> list[Any]:
    """The value of each token's sequence; None where the producer gave none."""
    count = len(values)
    return [values[at] if 0 <= at < count else None for at in sequence.tolist()]


def _joined(parts: list[dict[str, Any]]) -> Batch:
    columns: dict[str, Any] = {}
    for name in COLUMNS["tokens"]:
        values = [part[name] for part in parts]
        if isinstance(values[0], np.ndarray):
            columns[name] = np.concatenate(values)
        else:
            columns[name] = [item for value in values for item in value]
    return Batch("tokens", columns)
