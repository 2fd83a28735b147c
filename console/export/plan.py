"""A checked request for a table (columns, steps, times), and its result as a stream of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Final

import msgspec
import polars as pl
import pyarrow as pa

from console.export import derived
from console.export.merge import rising
from console.export.numbers import Names, joined
from console.export.polars_columns import DTYPES, picked, schema, stacked
from console.export.projection import EVERYTHING, Projection, projection_for
from console.export.schema import LATEST, TABLES, Column, Table
from console.export.source import Source
from console.export.steps import MANY_NAMES, STEP_KEYS, Steps, long_batch
from driftline.catalog.metrics import resolve

Parts = Iterator[pl.DataFrame]


class TableRequestError(ValueError):
    """A request for a table or column that does not exist; the message is a sentence."""


class TableRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a table: `columns` (all if empty), steps `steps[0]` to `steps[1]` and Unix times `since` to `until`.

    Both ends are included; None leaves an end open. `long` turns `metrics` into rows of step, time, version,
    metric, value.
    """

    table: str = "metrics"
    columns: tuple[str, ...] = ()
    steps: tuple[int | None, int | None] = (None, None)
    since: float | None = None
    until: float | None = None
    long: bool = False


LONG: Final = {
    "step": Column("int"), "time": Column("time", "UTC"), "version": Column("int"),
    "metric": Column("str"), "value": Column("float"),
}  # fmt: skip
_LISTED: Final = 200
"""Columns that a sentence lists: names may be a hundred thousand."""
_WHEN: Final = {"syncs": "start", "spans": "start"}


class TableResult:
    """A requested table: `columns` in order, and `parts`, which can be iterated once.

    `again` makes the parts anew where a stream turned out not to be possible (`OutOfOrderError` was raised). `held` are
    the rows of `metrics` where they are in memory. `table` is the whole table for a file, where it has so many columns
    that parts of it would cost more than all its numbers.
    """

    def __init__(
        self,
        columns: dict[str, Column],
        parts: Parts,
        again: Callable[[], TableResult] | None = None,
        *,
        held: Steps | None = None,
        table: Callable[[], pa.Table] | None = None,
    ) -> None:
        self.columns = columns
        self.parts = parts
        self.again = again
        self.held = held
        self.table = table

    @property
    def schema(self) -> dict[str, pl.DataType]:
        return schema(self.columns)

    def collect(self) -> pl.DataFrame:
        """The whole table in memory."""
        try:
            found = list(self.parts)
        except derived.OutOfOrderError:
            assert self.again is not None
            return self.again().collect()
        return pl.concat(found) if found else pl.DataFrame(schema=self.schema)


def open_table(
    source: Source, request: TableRequest, *, stream: bool = True, projection: Projection | None = None
) -> TableResult:
    """The requested table. Raises TableRequestError. `projection`: the part of it that the caller will use, if known.

    With `stream` the parts of `metrics` come while they are read, which works as long as there is one report a
    step, in order, with names known from the first part; the other tables of single frames always stream.
    """
    table = TABLES.get(request.table)
    if table is None:
        raise TableRequestError(f"unknown table '{request.table}'; allowed: {', '.join(TABLES)}")
    if request.long and request.table != "metrics":
        raise TableRequestError(f"only the table metrics has a long form, not {request.table}")
    where = _where(request, table)
    synthetic = source.synthetic()
    if projection is None:
        projection = _projection(request, where)
    if request.table == "metrics":
        if synthetic and projection.columns is not None:
            projection = projection._replace(columns=projection.columns | {"synthetic"})  # it may be a number's name
        return _metrics(source, request, where, projection, synthetic=synthetic, stream=stream)
    if table.rows is not None or request.table == table.source:
        made = TableResult(dict(table.columns), _with_all_columns(source.parts(table.source, projection), table))
    else:
        put_together = {"syncs": derived.syncs, "commands": derived.commands}[request.table]
        made = TableResult(dict(table.columns), iter([put_together(_all(source, table.source))]))
    return _cut(made, request, where, synthetic=synthetic)


def _projection(request: TableRequest, where: pl.Expr | None) -> Projection:
    """The projection of the stored table that the request needs."""
    if not request.columns or request.long:
        return projection_for(None, where)
    return projection_for(
        [resolve(name) for name in request.columns] if request.table == "metrics" else list(request.columns), where
    )


def _with_all_columns(parts: Parts, table: Table) -> Parts:
    """Parts with all columns of their table, null where the values were not read."""
    kinds = schema(table.columns)
    for part in parts:
        missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in kinds.items() if name not in part.columns]
        yield part.with_columns(missing).select(list(kinds)) if missing else part


def _metrics(
    source: Source,
    request: TableRequest,
    where: pl.Expr | None,
    projection: Projection,
    *,
    synthetic: bool,
    stream: bool,
) -> TableResult:
    made = None
    if stream and request.long:
        made = _long_stream(source, request, where, synthetic=synthetic)
    elif stream:
        made = _wide_stream(source, request, where, projection, synthetic=synthetic)
    if made is None:
        return _held(source, request, where, synthetic=synthetic)
    made.again = lambda: _held(source, request, where, synthetic=synthetic)
    return made


def _wide_stream(
    source: Source, request: TableRequest, where: pl.Expr | None, projection: Projection, *, synthetic: bool
) -> TableResult | None:
    """The steps while they are read; None where names are too many, or some that are asked for come later."""
    parts = source.parts("reports", projection)
    first = next(parts, None)
    if first is None:
        return _cut(TableResult(dict(TABLES["metrics"].columns), iter(())), request, where, synthetic=synthetic)
    names = derived.metric_names(first)
    if len(names) > MANY_NAMES or not {*names, "synthetic"}.issuperset(map(resolve, request.columns)):
        return None
    streamed = derived.in_order(chain([first], parts), names, projection)
    return _cut(TableResult(_named(names), streamed), request, where, projection, synthetic=synthetic)


def _long_stream(
    source: Source, request: TableRequest, where: pl.Expr | None, *, synthetic: bool
) -> TableResult | None:
    """A row a number while they are read; None where names are asked for: which there are shows at the end."""
    if request.columns:
        return None
    columns = dict(LONG) | ({"synthetic": Column("bool")} if synthetic else {})

    def parts() -> Parts:
        names, last = Names(), None
        for some in source.numbers(names, {}):
            if not rising(some.step, last):
                raise derived.OutOfOrderError
            last = int(some.step[-1]) if some.reports else last
            yield _labelled(long_batch(some, names, where), columns)

    return TableResult(columns, parts())


def _held(source: Source, request: TableRequest, where: pl.Expr | None, *, synthetic: bool) -> TableResult:
    """The steps from all their numbers in memory.

    All of them: whether a report was taken back by a resume shows only in the other reports of its step.
    """
    names = Names()
    steps = Steps(joined(list(source.numbers(names, {}))), names, where)
    columns = _named(steps.columns)
    if synthetic and "synthetic" not in columns:
        columns["synthetic"] = Column("bool")
    chosen = _chosen(request, columns, TableResult(_named(steps.columns), iter(())))
    if request.long:
        columns = dict(LONG) | ({"synthetic": Column("bool")} if synthetic else {})
        mine = [name for name in map(resolve, request.columns) if name not in STEP_KEYS]
        return TableResult(columns, (_labelled(part, columns) for part in steps.long(mine)))
    if synthetic and "synthetic" not in chosen:
        chosen.append("synthetic")
    columns = {name: columns[name] for name in chosen}
    label = "synthetic" if synthetic else ""
    table = (lambda: steps.table(chosen, label=label)) if len(chosen) > MANY_NAMES else None
    return TableResult(columns, steps.wide(chosen, label=label), held=steps, table=table)


def _labelled(part: pl.DataFrame, columns: Iterable[str]) -> pl.DataFrame:
    """With the label of a synthetic run, where the columns have one that the part has not."""
    names = list(columns)
    if part.columns == names:
        return part
    return picked(part.with_columns(pl.lit(True).alias("synthetic")), names)


def _named(names: Iterable[str]) -> dict[str, Column]:
    return {name: TABLES["metrics"].columns.get(name, Column("float")) for name in names}


def _all(source: Source, stored: str) -> pl.DataFrame:
    parts = list(source.parts(stored))
    return stacked(parts) if parts else derived.empty(stored)


def _where(request: TableRequest, table: Table) -> pl.Expr | None:
    conditions: list[pl.Expr] = []
    low, high = request.steps
    if low is not None or high is not None:
        if "step" not in table.columns:
            raise TableRequestError(
                f"the table {request.table} has no steps; take a time range with --since and --until"
            )
        conditions += [] if low is None else [pl.col("step") >= low]
        conditions += [] if high is None else [pl.col("step") <= high]
    when = pl.col(_WHEN.get(request.table, "time"))
    for moment, above in ((request.since, True), (request.until, False)):
        if moment is not None:
            if not abs(moment) < LATEST:
                raise TableRequestError(f"{moment} is not a time: Unix seconds before the year 10000 are needed")
            limit = pl.lit(round(moment * 1e6)).cast(DTYPES["time"])
            conditions.append(when >= limit if above else when <= limit)
    return pl.all_horizontal(conditions) if conditions else None


def _cut(
    made: TableResult,
    request: TableRequest,
    where: pl.Expr | None,
    projection: Projection = EVERYTHING,
    *,
    synthetic: bool,
) -> TableResult:
    """Rows and columns as asked, and the label of a synthetic run; the parts have those of the projection."""
    columns = dict(made.columns)
    if synthetic and "synthetic" not in columns:
        columns["synthetic"] = Column("bool")
    names = _chosen(request, columns, made)
    if synthetic and "synthetic" not in names:
        names.append("synthetic")
    kept_names = [name for name in names if projection.has(name) or name not in made.columns]

    def parts() -> Parts:
        for part in made.parts:
            kept = part if where is None else part.filter(where)
            if synthetic and "synthetic" not in kept.columns:
                kept = kept.with_columns(pl.lit(True).alias("synthetic"))
            yield kept if kept.columns == kept_names else picked(kept, kept_names)

    return TableResult({name: columns[name] for name in names}, parts())


def _chosen(request: TableRequest, columns: dict[str, Column], made: TableResult) -> list[str]:
    asked = [resolve(name) for name in request.columns] if request.table == "metrics" else list(request.columns)
    known = made.columns if request.long else columns
    for name in asked:
        if name not in known:
            listed = ", ".join(islice(known, _LISTED)) + (
                f" and {more} more" if (more := len(known) - _LISTED) > 0 else ""
            )
            raise TableRequestError(f"the table {request.table} has no column '{name}'; it has: {listed}")
    return list(columns) if request.long or not asked else list(dict.fromkeys(asked))
