"""Tables of a run as LazyFrames, and SQL over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import polars as pl
from polars.io.plugins import register_io_source

from console.snapshot.plan import Ask, answer
from console.snapshot.source import Source
from console.tables import TABLES

_SELECT: Final = re.compile(r"\s*\(*\s*(select|with)\b", re.IGNORECASE)
_RELATION: Final = re.compile(r"relation '([^']*)' was not found")


class QueryError(ValueError):
    """A query that cannot be answered; the message is a sentence."""


def scan(source: Source, table: str) -> pl.LazyFrame:
    """A table as a LazyFrame, read anew each time that it is collected. Raises AskError."""
    first = answer(source, Ask(table=table))
    if TABLES[table].open or table != TABLES[table].source:
        # Of these the columns, or the rows, are known only when everything was read.
        return first.collect().lazy()

    def read(
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG001 - a hint
    ) -> Iterator[pl.DataFrame]:
        for part in answer(source, Ask(table=table)).parts:
            kept = part if predicate is None else part.filter(predicate)
            kept = kept if with_columns is None else kept.select(with_columns)
            if n_rows is not None:
                kept = kept.head(n_rows)
                n_rows -= kept.height
            yield kept
            if n_rows == 0:
                return

    return register_io_source(read, schema=first.schema)


def query(source: Source, sql: str) -> pl.DataFrame:
    """The answer to a SELECT over TABLES; only those that the text names are read. Raises QueryError."""
    if not _SELECT.match(sql):
        raise QueryError("a query begins with SELECT or WITH; for example: SELECT step, version FROM metrics")
    named = [table for table in TABLES if re.search(rf"(?<![\w./]){table}(?![\w/])", sql, re.IGNORECASE)]
    if not named:
        raise QueryError(f"the query names no table; tables: {', '.join(TABLES)}")
    tables = {table: scan(source, table) for table in named}
    try:
        return pl.SQLContext(tables).execute(sql).collect(engine="streaming")
    except pl.exceptions.ColumnNotFoundError as error:
        # Polars goes on to print its plan. A name with a slash needs quotes, or SQL divides.
        raise QueryError(f"{_first_line(error)} (quote names with a slash: \"reward/mean\")") from error
    except pl.exceptions.SQLInterfaceError as error:
        if found := _RELATION.search(str(error)):
            raise QueryError(f"no table '{found[1]}'; tables: {', '.join(TABLES)}") from error
        raise QueryError(f"not understood: {_first_line(error)}") from error
    except pl.exceptions.PolarsError as error:
        raise QueryError(f"cannot be answered: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
