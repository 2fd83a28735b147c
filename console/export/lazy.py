"""Tables of a run as LazyFrames, and SQL over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from console.export.derived import OutOfOrderError
from console.export.plan import TableRequest, TableResult, open_table
from console.export.polars_columns import picked
from console.export.projection import Projection, projection_for
from console.export.schema import TABLES
from console.export.source import Source

_SELECT: Final = re.compile(r"\s*\(*\s*(select|with)\b", re.IGNORECASE)
_RELATION: Final = re.compile(r"relation '([^']*)' was not found")
_NOTHING: Final = Projection(frozenset())


class QueryError(ValueError):
    """A query that cannot be answered; the message is a sentence."""


def scan(source: Source, table: str) -> pl.LazyFrame:
    """A table as a LazyFrame, read anew each time that it is collected. Raises TableRequestError.

    `metrics` is scanned first, for its names; if it cannot be streamed it is held in memory.
    """
    if table == "metrics" and not _in_order(source):
        return _whole(source, table)
    return _streamed(source, table, _Reading())


def query(source: Source, sql: str) -> pl.DataFrame:
    """The answer to a SELECT over TABLES; only those that the text names are read. Raises QueryError."""
    if not _SELECT.match(sql):
        raise QueryError("a query begins with SELECT or WITH; for example: SELECT step, version FROM metrics")
    named = [table for table in TABLES if re.search(rf"(?<![\w./]){table}(?![\w/])", sql, re.IGNORECASE)]
    if not named:
        raise QueryError(f"the query names no table; tables: {', '.join(TABLES)}")
    reading = _Reading()
    tables = {table: _streamed(source, table, reading) for table in named}
    try:
        found = _execute(tables, sql)
        # A reader that stopped before the end of `metrics` may have missed a step reported again, or a name, behind it.
        if "metrics" not in tables or reading.ended or _in_order(source):
            return found
    except (pl.exceptions.PolarsError, OutOfOrderError) as error:
        # The columns of `metrics` are taken from its beginning; others may come later.
        late = "metrics" in tables and _no_column(error)
        if isinstance(error, pl.exceptions.PolarsError) and not reading.disorder and not late:
            raise _query_error(error) from error
    try:
        return _execute(tables | {"metrics": _whole(source, "metrics")}, sql)
    except pl.exceptions.PolarsError as error:
        raise _query_error(error) from error


class _Reading:
    """Observations of the streams of a query's open tables."""

    def __init__(self) -> None:
        self.disorder = False
        """A stream was out of order. Polars may wrap that in an error of its own."""
        self.ended = False
        """A stream was read to its end, in order."""


def _in_order(source: Source) -> bool:
    """Whether `metrics` can be streamed; reads all of it."""
    try:
        for _ in open_table(source, TableRequest(table="metrics"), projection=_NOTHING).parts:
            pass
    except OutOfOrderError:
        return False
    return True


def _no_column(error: Exception) -> bool:
    unknown = isinstance(error, pl.exceptions.SQLInterfaceError) and "no column named" in str(error)
    return unknown or isinstance(error, pl.exceptions.ColumnNotFoundError)


def _execute(tables: dict[str, pl.LazyFrame], sql: str) -> pl.DataFrame:
    return pl.SQLContext(tables).execute(sql).collect(engine="streaming")


def _whole(source: Source, table: str) -> pl.LazyFrame:
    opened = open_table(source, TableRequest(table=table), stream=False)
    return opened.collect().lazy() if opened.held is None else _held(opened)


def _held(opened: TableResult) -> pl.LazyFrame:
    """Steps that are in memory, of which only the columns that are asked for become columns."""
    steps = opened.held
    assert steps is not None

    def read(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001 - a hint
    ) -> Iterator[pl.DataFrame]:
        columns = list(opened.columns) if with_columns is None else with_columns
        needed = list(dict.fromkeys([*columns, *(predicate.meta.root_names() if predicate is not None else ())]))
        for part in steps.wide(needed, label="synthetic"):
            kept = part if n_rows is None else part.head(n_rows)
            if n_rows is not None:
                n_rows -= kept.height
            kept = kept if predicate is None else kept.filter(predicate)
            yield picked(kept, columns)
            if n_rows == 0:
                return

    return register_io_source(read, schema=opened.schema)


def _streamed(source: Source, table: str, reading: _Reading) -> pl.LazyFrame:
    """A table that is read when it is collected, with pushed-down columns and filters; sets `reading`."""
    if table != TABLES[table].source and not TABLES[table].open:
        return _whole(source, table)  # its rows are merged from all frames
    opened = open_table(source, TableRequest(table=table), projection=_NOTHING)
    if opened.held is not None:
        reading.ended = True
        return _held(opened)
    schema = opened.schema

    def read(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001 - a hint
    ) -> Iterator[pl.DataFrame]:
        columns = list(schema) if with_columns is None else with_columns
        projection = projection_for(columns, predicate)
        if n_rows is not None:
            # It counts rows of the table, not of the answer: rows that the predicate drops count as well.
            projection = projection._replace(where=None)
        needed = [name for name in schema if projection.has(name)]
        try:
            for part in open_table(source, TableRequest(table=table), projection=projection).parts:
                kept = picked(part, needed)
                if n_rows is not None:
                    kept = kept.head(n_rows)
                    n_rows -= kept.height
                kept = kept if predicate is None else kept.filter(predicate)
                yield picked(kept, columns)
                if n_rows == 0 and not TABLES[table].open:
                    return  # an open table is read on, because names may come later
        except OutOfOrderError:
            reading.disorder = True
            raise
        reading.ended |= TABLES[table].open

    return register_io_source(read, schema=schema)


def _query_error(error: pl.exceptions.PolarsError) -> QueryError:
    """The error of a query as one sentence."""
    if isinstance(error, pl.exceptions.ColumnNotFoundError):
        # The further lines are the plan. A name with a slash needs quotes, or SQL divides.
        return QueryError(f'{_first_line(error)} (quote names with a slash: "reward/mean")')
    if isinstance(error, pl.exceptions.SQLInterfaceError):
        if found := _RELATION.search(str(error)):
            return QueryError(f"no table '{found[1]}'; tables: {', '.join(TABLES)}")
        return QueryError(f"not understood: {_first_line(error)}")
    return QueryError(f"cannot be answered: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
