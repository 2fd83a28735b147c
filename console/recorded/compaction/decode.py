"""Decodes frames from the columns of the compacted tables (`console.recorded.compaction.encode`), byte for byte as they
were sent. Pure.

A frame goes to a table only if it can be decoded from there byte for byte: `console.recorded.compaction.encode` calls
`faithful` first, and keeps the other frames encoded. So a replay without the journal equals one with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from driftline.frames import EngineFix, Event, FixState, Frame, FrameError, Metrics, Span, Stamped, Tokens, encode, ints

Row = Mapping[str, Any]

_NOT_JSON: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""Strings for the numbers that JSON does not have (`console.formatting.to_json`)."""
_SPAN: Final = tuple(field.name for field in msgspec.structs.fields(Span))


def event(row: Row) -> Event:
    """An Event from its row."""
    data = {name: _number(item) for name, item in json.loads(row["data"]).items()}
    return Event(row["time"], row["level"], row["kind"], row["text"], row["step"], data)


def _number(item: Any) -> Any:
    return _NOT_JSON.get(item, item) if isinstance(item, str) else item


def span(row: Row) -> Span:
    """A Span from its row."""
    return Span(*(row[name] for name in _SPAN))


def fix(rows: Sequence[Row]) -> FixState:
    """A FixState from its rows, one for each engine's report; a single one without an engine where there was none."""
    first = rows[0]
    reports = tuple(
        EngineFix(
            row["engine"], row["effective"], row["engine_how"], row["since_version"], row["since_step"],
            row["engine_detail"],
        )
        for row in rows
        if row["engine"] is not None
    )  # fmt: skip
    return FixState(
        first["fix"], first["requested"], first["generation"], first["by"], first["time"], first["how"], reports,
        first["detail"],
    )  # fmt: skip


def metrics(rows: Sequence[Row]) -> Metrics:
    """A Metrics frame from its rows, one for each number or label."""
    first = rows[0]
    values = {row["name"]: row["value"] for row in rows if row["value"] is not None}
    labels = {row["name"]: row["label"] for row in rows if row["label"] is not None}
    return Metrics(first["step"], first["version"], first["time"], values, labels)


def tokens(columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]]) -> Tokens:
    """A Tokens frame from the columns of its rows, one for each token."""
    sequence = np.asarray(columns["sequence"], "<i4")
    _, first = np.unique(sequence, return_index=True)  # sequences are 0, 1, ... and each has a token

    def blob(name: str, kind: str) -> bytes:
        return np.asarray(columns[name], kind).tobytes()

    def each(name: str) -> tuple[Any, ...]:
        # Given for the first sequences only.
        column = columns[name]
        return tuple(value for at in first.tolist() if (value := column[at]) is not None)

    pieces = columns["piece"]
    return Tokens(
        int(columns["step"][0]), int(columns["version"][0]), float(columns["time"][0]), len(sequence),
        blob("id", "<i4"), sequence.tobytes(), blob("position", "<i4"), blob("token_version", "<i4"),
        blob("rollout", "<f4"), blob("trainer", "<f4"),
        each("engine"), each("prompt"), each("reward"), () if pieces[0] is None else tuple(pieces),
    )  # fmt: skip


def faithful(stamped: Stamped, frame: Frame, data: str = "") -> bool:
    """Whether a frame can be decoded from the columns byte for byte; `data` is an event's, as in its column.

    Not faithful: text that was sanitised, encodings of another version, maps in an order that rows lose.
    """
    match frame:
        case Metrics():
            names = [*frame.values, *sorted(frame.labels.keys() - frame.values.keys())]
            if list(frame.labels) != [name for name in names if name in frame.labels]:
                return False
        case Tokens() if not _regular(frame):
            return False
        case Event():
            try:
                again = {name: _number(item) for name, item in json.loads(data).items()}
                frame = msgspec.structs.replace(frame, data=again)
            except ValueError:
                return False
    try:
        return encode(frame) == bytes(stamped.body)
    except FrameError:
        return False


def _regular(frame: Tokens) -> bool:
    """True if sequences count from 0, each has a token, and no field is given for a sequence without one."""
    found = np.unique(ints(frame.seq))
    count = len(found)
    if not count or int(found[0]) != 0 or int(found[-1]) != count - 1:
        return False
    longest = max(len(frame.engines), len(frame.prompts), len(frame.rewards))
    return longest <= count and len(frame.pieces) in (0, frame.n)
