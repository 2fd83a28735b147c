"""The table `metrics` from Numbers: long, or wide as frames of Polars or as one table of Arrow.

Its memory and time follow the numbers, not names times steps: a name that a step has not costs a bit, if anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from console.export.merge import Merged, merged
from console.export.numbers import NUMBERS, Codes, Floats, Ints, Names, Numbers
from console.export.polars_columns import times
from console.export.schema import TABLES
from console.recorded.compaction.read_wide import nulls

STEP_KEYS: Final = ("step", "time", "version")
CELLS: Final = 8_000_000
"""Names times rows of a part that has a column for each name: 64 MB."""
MANY_NAMES: Final = 4096
"""Columns from which on a file is written from a table of Arrow: Polars takes 7 KB a column and part, Arrow none for a
column without a number."""
_DENSE: Final = 8
"""A column with a number in every eighth row, or more, is one array; with fewer, arrays between stretches of nulls."""


def ordered(names: Sequence[str]) -> list[str]:
    """Columns of the table `metrics` with these names: step, time, version, the catalogue, then others, sorted."""
    known = TABLES["metrics"].columns
    return [*known, *sorted(name for name in names if name not in known)]


class Steps:
    """Rows of the table `metrics`, one a trainer step, of which `where` holds if that is given."""

    def __init__(self, numbers: Numbers, names: Names, where: pl.Expr | None = None) -> None:
        self._numbers, self._names = numbers, names
        self._merged = _where(merged(numbers), where)
        self.columns = ordered(names.canonical)

    def __len__(self) -> int:
        return len(self._merged.step)

    def long(self, chosen: Sequence[str] = ()) -> Iterator[pl.DataFrame]:
        """A row a number, by step, in the order of the columns or of those chosen."""
        rank = _rank(self._names, chosen or self.columns[len(STEP_KEYS) :])
        ends = np.cumsum(self._numbers.size[self._merged.reports])
        for begin, end in _cuts(self._merged.row, ends):
            yield _long(self._numbers, self._merged, slice(begin, end), self._names, rank)

    def wide(self, columns: Sequence[str], *, label: str = "") -> Iterator[pl.DataFrame]:
        """The rows with some of the columns, in parts of bounded size; `label` is one that is true in every row,
        unless it is the name of a number.
        """
        made, places = self._merged, self._places(columns)
        size = max(1, CELLS // max(len(columns), 1))
        for begin in range(0, len(self), size):
            part = slice(begin, begin + size)
            mine = slice(*np.searchsorted(made.row, (begin, begin + size)).tolist())
            codes, values, place = self._numbers.flat(made.reports[mine])
            count = len(made.step[part])
            found = dense(made.row[mine][place] - begin, codes, values, count, places)
            have = _keys(made, part) | found
            if label and label not in places:
                have[label] = pl.Series(label, [True]).new_from_index(0, count)
            # Named by the dict: a series without a name would be given one.
            absent = nulls("", pl.Float64(), count)
            yield pl.DataFrame({name: have[name] if name in have else absent.alias(name) for name in columns})

    def table(self, columns: Sequence[str], *, label: str = "") -> pa.Table:
        """The rows with some of the columns, whole: those of no number share one array, and a name of few has few."""
        made, count = self._merged, len(self)
        codes, values, place = self._numbers.flat(made.reports)
        row = made.row[place]
        order = np.argsort(codes, kind="stable")
        codes, values, row = codes[order], values[order], row[order]
        # Of a name that comes twice in a row the later number counts.
        last = np.append((codes[1:] != codes[:-1]) | (row[1:] != row[:-1]), True)[: len(codes)]
        if not last.all():
            codes, values, row = codes[last], values[last], row[last]
        limits = np.searchsorted(codes, np.arange(len(self._names.canonical) + 1))
        keys = {name: column.to_arrow() for name, column in _keys(made, slice(None)).items()}
        absent = pa.nulls(count, pa.float64())
        if label and label not in self._names.canonical:
            keys[label] = pa.array(np.ones(count, np.bool_))
        code_of = self._places(columns)
        arrays: list[Any] = []
        for name in columns:
            code = code_of.get(name)
            if code is None:
                arrays.append(keys.get(name, absent))
                continue
            mine = slice(int(limits[code]), int(limits[code + 1]))
            arrays.append(_sparse(values[mine], row[mine], count, absent))
        return pa.Table.from_arrays(arrays, names=list(columns))

    def _places(self, columns: Sequence[str]) -> dict[str, int]:
        """Codes by name."""
        code = {name: at for at, name in enumerate(self._names.canonical)}
        return {name: code[name] for name in columns if name in code}


def long_batch(numbers: Numbers, names: Names, where: pl.Expr | None) -> pl.DataFrame:
    """Reports that are one a step, ascending, as rows of one number each."""
    every = np.arange(numbers.reports)
    whole = _where(Merged(every, every, numbers.step, numbers.version, numbers.time), where)
    rank = _rank(names, ordered(names.canonical)[len(STEP_KEYS) :])
    return _long(numbers, whole, slice(None), names, rank)


def dense(row: Ints, codes: Codes, values: Floats, count: int, wanted: dict[str, int]) -> dict[str, pl.Series]:
    """Columns of `count` rows, null where they have no number, for those of the wanted names that have one.

    `row`, `codes` and `values` are of each number, shape (n,); of a name that comes twice in a row the last one counts.
    """
    place_of = np.full(max(int(codes.max(initial=-1)), max(wanted.values(), default=-1)) + 2, -1)  # the last one for -1
    found = np.zeros(len(place_of), np.bool_)
    found[codes] = True
    present = [(name, code) for name, code in wanted.items() if found[code]]
    place_of[[code for _, code in present]] = np.arange(len(present))
    place = place_of[codes]
    mine = place >= 0
    if not mine.all():
        place, row, values = place[mine], row[mine], values[mine]
    cells = np.zeros((len(present), count))
    have = np.zeros((len(present), count), np.bool_)
    cells[place, row], have[place, row] = values, True
    column = pl.Series(cells.ravel())
    if not have.all():
        column = pl.select(pl.when(pl.Series(have.ravel())).then(column)).to_series().rechunk()
    return {name: column.slice(at * count, count).alias(name) for at, (name, _) in enumerate(present)}


def _keys(made: Merged, part: slice) -> dict[str, pl.Series]:
    columns = (
        pl.Series("step", made.step[part]),
        times("time", made.time[part]),
        pl.Series("version", made.version[part]),
    )
    return {column.name: column for column in columns}


def _where(made: Merged, where: pl.Expr | None) -> Merged:
    """The rows for which a condition on STEP_KEYS holds."""
    if where is None:
        return made
    keys = pl.DataFrame(list(_keys(made, slice(None)).values()))
    # A condition that is null is not met.
    kept = keys.select(where.alias("kept"))["kept"].fill_null(value=False).to_numpy()
    mine = kept[made.row]
    row = (np.cumsum(kept) - 1)[made.row[mine]]
    return Merged(made.reports[mine], row, made.step[kept], made.version[kept], made.time[kept])


class _Rank(NamedTuple):
    """By code, the place of a name among the columns, -1 for one that is not among them; the last entry is for -1."""

    of: Ints
    columns: int


def _rank(names: Names, columns: Sequence[str]) -> _Rank:
    at = {name: place for place, name in enumerate(columns)}
    return _Rank(np.array([*(at.get(name, -1) for name in names.canonical), -1]), len(columns))


def _cuts(row: Ints, ends: Ints) -> Iterator[tuple[int, int]]:
    """Reports in parts of about NUMBERS numbers, of whole rows; `ends` counts the numbers up to each report's last."""
    begin = 0
    while begin < len(row):
        before = int(ends[begin - 1]) if begin else 0
        end = max(int(np.searchsorted(ends, before + NUMBERS)), begin + 1)
        end = int(np.searchsorted(row, row[min(end, len(row)) - 1], side="right"))
        yield begin, end
        begin = end


def _long(numbers: Numbers, made: Merged, part: slice, names: Names, rank: _Rank) -> pl.DataFrame:
    codes, values, place = numbers.flat(made.reports[part])
    row = made.row[part][place]
    order = _order(row, rank.of[codes], rank.columns)
    codes, values, row = codes[order], values[order], row[order]
    keys = [times("time", made.time), pl.Series("version", made.version)]
    return pl.DataFrame(
        [
            pl.Series("step", made.step[row]),
            *(column.gather(row) for column in keys),
            pl.Series("metric", names.canonical, pl.String()).gather(codes),
            pl.Series("value", values),
        ]
    )


def _order(row: Ints, rank: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.int64]:
    """The numbers to keep, by row and rank: the last of several of one row and name."""
    key = row * columns + rank
    order = np.argsort(key, kind="stable")
    order = order[rank[order] >= 0]
    sorted_keys = key[order]
    last = np.append(sorted_keys[1:] != sorted_keys[:-1], True)[: len(order)]
    return np.asarray(order[last])


def _sparse(values: Floats, row: Ints, count: int, absent: Any) -> Any:
    """A column of `count` rows with values at some rows, ascending."""
    if len(row) == 0:
        return absent
    if len(row) == count:
        return pa.array(values)
    if len(row) * _DENSE >= count:
        cells, missing = np.zeros(count), np.ones(count, np.bool_)
        cells[row], missing[row] = values, False
        return pa.array(cells, mask=missing)
    given = pa.array(values)
    starts = np.flatnonzero(np.append(True, np.diff(row) != 1))
    pieces, at = [], 0
    for begin, end in zip(starts.tolist(), [*starts[1:].tolist(), len(row)], strict=True):
        first = int(row[begin])
        pieces += [absent.slice(0, first - at), given.slice(begin, end - begin)]
        at = first + end - begin
    return pa.chunked_array([*pieces, absent.slice(0, count - at)])
