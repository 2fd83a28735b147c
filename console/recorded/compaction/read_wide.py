"""The compacted table `reports` (`console.recorded.compaction.wide`) as frames and as columns by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import polars as pl

from console.recorded.compaction.wide import COLUMNS, VALUE, Layout
from driftline.catalog.metrics import resolve
from driftline.frames import Metrics, Stamped, encode

_KEYS: Final = [name for name in COLUMNS if name not in ("shape", "layout")]


class Sheet(NamedTuple):
    """Frames of one shape, in order: their keys, one row each, and by canonical name the values; NaN is a value."""

    layout: Layout
    keys: pl.DataFrame
    values: dict[str, pl.Series]

    @property
    def labels(self) -> dict[str, str]:
        """Labels by canonical name."""
        return {resolve(name): label for name, label in self.layout.labels.items()}


def sheets(
    path: Path,
    *,
    until: int | None = None,
    columns: Collection[str] | None = None,
    rows: tuple[int, int | None] = (0, None),
) -> Iterator[Sheet]:
    """The frames of a segment, up to number `until`, by their shape; of `rows` only the first one and so many.

    With `columns`, canonical names, only their values are read; the other names are present with nulls.
    """
    have = list(pl.scan_parquet(path, glob=False).collect_schema())
    wanted = [
        name for name in have if not name.startswith(VALUE) or columns is None or resolve(name[len(VALUE) :]) in columns
    ]
    layouts = _layouts(pl.read_parquet(path, glob=False, columns=["shape", "layout"]))
    table = pl.scan_parquet(path, glob=False).select(wanted).slice(*rows).collect()
    if until is not None:
        table = table.filter(pl.col("seq") <= until)
    shape = table["shape"].to_numpy()
    for number, layout in layouts.items():
        mine = table if len(layouts) == 1 else table.filter(pl.Series(shape == number))
        values = {}
        for name in layout.names:
            column, known = VALUE + name, resolve(name)
            loaded = column in mine.columns
            values[known] = mine[column].alias(known) if loaded else nulls(known, pl.Null(), mine.height)
        if mine.height:
            yield Sheet(layout, mine.select(_KEYS), values)


def stamped(path: Path, start: int) -> Iterator[Stamped]:
    """The frames of a segment from number `start` on, byte for byte."""
    rows = pl.read_parquet(path, glob=False)
    layouts = _layouts(rows)
    rows = rows.filter(pl.col("seq") >= start)
    places = {name: at for at, name in enumerate(rows.columns)}
    columns_of = {
        number: ([(name, places[VALUE + name]) for name in layout.names], layout.labels)
        for number, layout in layouts.items()
    }
    seq, hub_time, producer, step, version, time, shape = (places[name] for name in (*_KEYS, "shape"))
    for row in rows.iter_rows():
        names, labels = columns_of[row[shape]]
        frame = Metrics(row[step], row[version], row[time], {name: row[at] for name, at in names}, labels)
        yield Stamped(row[seq], row[hub_time], row[producer], msgspec.Raw(encode(frame)))


def _layouts(rows: pl.DataFrame) -> dict[int, Layout]:
    given = rows.select("shape", "layout").filter(pl.col("layout").is_not_null())
    return {shape: msgspec.json.decode(text, type=Layout) for shape, text in given.iter_rows()}


def nulls(name: str, dtype: pl.DataType, count: int) -> pl.Series:
    """A column without a value."""
    return pl.Series(name, [None], dtype=dtype).new_from_index(0, count)
