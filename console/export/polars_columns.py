"""Values of the tables' kinds as Polars columns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from console.export.schema import LATEST, Column, Kind
from console.recorded.compaction.read_wide import nulls

DTYPES: Final[dict[Kind, pl.DataType]] = {
    "int": pl.Int64(),
    "int32": pl.Int32(),
    "float": pl.Float64(),
    "float32": pl.Float32(),
    "str": pl.String(),
    "bool": pl.Boolean(),
    "time": pl.Datetime("us", "UTC"),
}
_MICROSECONDS: Final = 1e6
_INT64: Final = 2**63


def schema(columns: Mapping[str, Column]) -> dict[str, pl.DataType]:
    """Polars types of the columns."""
    return {name: DTYPES[column.kind] for name, column in columns.items()}


def series(name: str, kind: Kind, values: Sequence[object]) -> pl.Series:
    """A column of Python values; a number or time that the kind cannot hold becomes null."""
    if kind == "time":
        # Times are numbers by the table's schema, which the type of a column's values does not know.
        micros = [None if value is None else _micros(float(value)) for value in values]  # type: ignore[arg-type]
        return pl.Series(name, micros, dtype=pl.Int64()).cast(DTYPES["time"])
    try:
        return pl.Series(name, values, dtype=DTYPES[kind])
    except OverflowError:
        kept = [v if isinstance(v, int) and -_INT64 <= v < _INT64 else None for v in values]
        return pl.Series(name, kept, dtype=DTYPES[kind])


def picked(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Columns by their names alone, which a producer chooses: Polars takes `*` and `^...$` for patterns."""
    # Named by the dict: a series without a name would be given one.
    return pl.DataFrame({name: frame[name] for name in names})


def stacked(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Rows of parts below each other, by the names alone; null where a part has no such column, or one of no type."""
    found: dict[str, list[pl.Series | None]] = {}
    for at, part in enumerate(parts):
        for column in part.get_columns():
            present = column.dtype != pl.Null()
            found.setdefault(column.name, [None] * len(parts))[at] = column if present else None
    whole = {}
    for name, columns in found.items():
        dtype = next((column.dtype for column in columns if column is not None), pl.Null())
        given = zip(columns, parts, strict=True)
        whole[name] = pl.concat([nulls(name, dtype, p.height) if column is None else column for column, p in given])
    return pl.DataFrame(whole)


def times(name: str, seconds: npt.NDArray[np.float64]) -> pl.Series:
    """Unix seconds as a column of times, to the nearest microsecond; null where they are not a date."""
    # Rounded, not truncated: a double holds a present-day time to a quarter of a microsecond.
    bad = ~(np.abs(seconds) < LATEST)
    micros = np.rint(np.where(bad, 0.0, seconds) * _MICROSECONDS).astype(np.int64)
    column = pl.Series(name, micros)
    if bad.any():
        column = pl.select(pl.when(pl.Series(~bad)).then(column)).to_series().alias(name)
    return column.cast(DTYPES["time"])


def _micros(seconds: float) -> int | None:
    if not math.isfinite(seconds) or abs(seconds) >= LATEST:
        return None
    return round(seconds * _MICROSECONDS)
