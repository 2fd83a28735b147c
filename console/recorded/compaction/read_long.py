"""The compacted table `metrics`, a row for each number of a frame, as columns by name.

The rows of a frame stand together, one for each name that it has. So frames of the same names have the same number of
rows, and reshaping their numbers gives the columns: no grouping or look-up is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from driftline.catalog.metrics import resolve


class Group(NamedTuple):
    """Frames of the same names and labels: the first row of each, shape (n,), and by canonical name their values."""

    first: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[np.float64]]
    labels: dict[str, str]


def read(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a table, and those that `groups` needs."""
    needed = list(dict.fromkeys(("seq", "name", "value", "label", *columns)))
    return pq.read_table(path, columns=needed, read_dictionary=["name", "label"])


def groups(rows: pa.Table) -> Iterator[Group]:
    """The frames of a table in groups; within each in their order."""
    seq, value = array(rows, "seq"), array(rows, "value")
    names, name = codes(rows, "name")
    labels, label = codes(rows, "label")
    has_value = np.asarray(rows.column("value").is_valid().to_numpy())
    # A name without a number has a label alone.
    sign = 2 * (name.astype(np.int64) * (len(labels) + 1) + label + 1) + has_value
    starts = np.flatnonzero(np.concatenate(([True], seq[1:] != seq[:-1]))[: len(seq)])
    sizes = np.diff(np.concatenate((starts, [len(seq)])))
    for size in np.unique(sizes).tolist():
        cells = starts[sizes == size][:, None] + np.arange(size)
        kinds, which = _distinct(sign[cells])
        # Sorted once: a look through all frames for each of ever new kinds would take their square.
        order = np.argsort(which, kind="stable")
        limits = np.searchsorted(which[order], np.arange(len(kinds) + 1)).tolist()
        for turn, kind in enumerate(kinds.tolist()):
            mine = cells[order[limits[turn] : limits[turn + 1]]] if len(kinds) > 1 else cells
            numbers = value[mine].T.copy()  # a row of memory for each name
            values: dict[str, npt.NDArray[np.float64]] = {}
            label_of: dict[str, str] = {}
            for at, one in enumerate(kind):
                known, code = divmod(one // 2, len(labels) + 1)
                if one % 2:
                    values[resolve(names[known])] = numbers[at]
                if code:
                    label_of[resolve(names[known])] = labels[code - 1]
            yield Group(mine[:, 0], values, label_of)


def array(rows: pa.Table, name: str) -> np.ndarray[Any, Any]:
    """A column of numbers; NaN for null."""
    return np.asarray(rows.column(name).combine_chunks().to_numpy(zero_copy_only=False))


def _distinct(rows: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The distinct rows, and which of them each row is."""
    if (rows == rows[0]).all():
        return rows[:1], np.zeros(len(rows), np.int64)
    kinds, which = np.unique(rows, axis=0, return_inverse=True)
    return kinds, which.ravel()


def codes(rows: pa.Table, name: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    """Distinct texts of a column and which of them each row has, -1 for null."""
    column = rows.column(name).unify_dictionaries().combine_chunks()
    whole = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return whole.dictionary.to_pylist(), np.asarray(whole.indices.fill_null(-1).to_numpy(zero_copy_only=False))
