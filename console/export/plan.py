"""A checked request for a table (columns, steps, times), and its result as a stream of parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec
import polars as pl

from console.export import derived
from console.export.polars_columns import DTYPES, picked, schema, stacked
from console.export.projection import Projection, projection_for
from console.export.schema import LATEST, TABLES, Column, Table
from console.export.source import Source
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
_WHEN: Final = {"syncs": "start", "spans": "start"}


class TableResult:
    """A requested table: `columns` in order, and `parts`, which can be iterated once.

    `again` makes the parts anew where a stream turned out not to be possible (`OutOfOrderError` was raised).
    """

    def __init__(
        self, columns: dict[str, Column], parts: Parts, again: Callable[[], TableResult] | None = None
    ) -> None:
        self.columns = columns
        self.parts = parts
        self.again = again

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
        made = _metrics(source, projection, stream=stream)
    elif table.rows is not None or request.table == table.source:
        made = TableResult(dict(table.columns), _with_all_columns(source.parts(table.source, projection), table))
    else:
        put_together = {"syncs": derived.syncs, "commands": derived.commands}[request.table]
        made = TableResult(dict(table.columns), iter([put_together(_all(source, table.source))]))
    again = (lambda: open_table(source, request, stream=False)) if made.again is not None else None
    return _cut(made, request, where, synthetic=synthetic, again=again)


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


def _metrics(source: Source, projection: Projection, *, stream: bool) -> TableResult:
    if not stream:
        # All of it: whether a report was taken back by a resume shows only in the other reports of its step.
        whole = derived.merged(_all(source, "reports"))
        return TableResult(_named(whole.columns), iter([whole]))
    parts = source.parts("reports", projection)
    first = next(parts, None)
    if first is None:
        return TableResult(dict(TABLES["metrics"].columns), iter(()))
    names = derived.metric_names(first)
    streamed = derived.in_order(chain([first], parts), names, projection)
    return TableResult(_named(names), streamed, again=lambda: _metrics(source, projection, stream=False))


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
    *,
    synthetic: bool,
    again: Callable[[], TableResult] | None,
) -> TableResult:
    """Rows, form and columns as asked, and the label of a synthetic run."""
    columns = dict(made.columns)
    if request.long:
        columns = dict(LONG)
    if synthetic and "synthetic" not in columns:
        columns["synthetic"] = Column("bool")
    names = _chosen(request, columns, made)
    if synthetic and "synthetic" not in names:
        names.append("synthetic")

    def parts() -> Parts:
        for part in made.parts:
            kept = part if where is None else part.filter(where)
            if request.long:
                kept = _long(kept, request.columns)
            if synthetic and "synthetic" not in kept.columns:
                kept = kept.with_columns(pl.lit(True).alias("synthetic"))
            yield kept if kept.columns == names else picked(kept, names)

    return TableResult({name: columns[name] for name in names}, parts(), again)


def _chosen(request: TableRequest, columns: dict[str, Column], made: TableResult) -> list[str]:
    asked = [resolve(name) for name in request.columns] if request.table == "metrics" else list(request.columns)
    known = made.columns if request.long else columns
    for name in asked:
        if name not in known:
            raise TableRequestError(f"the table {request.table} has no column '{name}'; it has: {', '.join(known)}")
    return list(columns) if request.long or not asked else list(dict.fromkeys(asked))


def _long(part: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    keys = ["step", "time", "version"]
    values = [resolve(name) for name in columns if name not in keys] or [c for c in part.columns if c not in keys]
    melted = [
        part.select(keys).with_columns(pl.lit(name).alias("metric"), part[name].alias("value")) for name in values
    ]
    return pl.concat(melted).filter(pl.col("value").is_not_null()).sort("step", maintain_order=True)
