"""Tables whose rows need several frames: trainer steps, weight syncs by phase, commands with their result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import polars as pl

from console.export.merge import rising
from console.export.numbers import KEYS
from console.export.polars_columns import schema
from console.export.projection import EVERYTHING, Projection
from console.export.schema import STORED, TABLES
from console.export.steps import ordered
from console.recorded.compaction.read_wide import nulls
from driftline.frames import TERMINAL

_PHASES: Final = ("pause", "load", "verify", "reset", "resume", "total")


class OutOfOrderError(ValueError):
    """The reports are not one a step, ascending, with names known from the start: they must be merged."""


def metric_names(frame: pl.DataFrame) -> list[str]:
    """Columns of the table `metrics` over these reports: step, time, version, the catalogue, then others, sorted."""
    return ordered([name for name in frame.columns if name not in KEYS])


def conform(frame: pl.DataFrame, names: Iterable[str], projection: Projection = EVERYTHING) -> pl.DataFrame:
    """Reports with those of these columns that are wanted, and their steps; null where there is no value."""
    kinds = schema(TABLES["metrics"].columns)
    present = {column.name: column for column in frame.get_columns() if column.dtype != pl.Null()}
    # Columns are used directly: a Polars query for each part would wait for the threads that write the part before.
    return pl.DataFrame(
        {
            name: present[name] if name in present else nulls(name, kinds.get(name, pl.Float64()), frame.height)
            for name in names
            if projection.has(name) or name == "step"  # a frame without a column would have no rows
        }
    )


def in_order(
    parts: Iterable[pl.DataFrame], names: list[str], projection: Projection = EVERYTHING
) -> Iterator[pl.DataFrame]:
    """The reports as they come, if they are one a step and ascending. Raises OutOfOrderError if not."""
    allowed = {*names, *KEYS}
    last = None
    for part in parts:
        steps = part["step"].to_numpy()
        if not allowed.issuperset(part.columns) or not rising(steps, last):
            raise OutOfOrderError
        last = int(steps[-1]) if len(steps) else last
        yield conform(part, names, projection)


def syncs(spans: pl.DataFrame) -> pl.DataFrame:
    """One row for each weight sync of each engine: seconds of every phase (null where it was not reported).

    A trainer that was started again counts its syncs from one: where an engine reports a phase of the same sync
    again, it is another sync, as in `console.store.syncs`. An equal span, sent again after a crash of the hub, is not.
    """

    def phase(name: str) -> pl.Expr:
        matches = pl.col("phase") == name
        return pl.when(matches.any()).then(pl.col("seconds").filter(matches).sum()).alias(f"{name}_s")

    def result(name: str) -> pl.Expr:
        return pl.col("result").filter(pl.col("phase") == name).last().fill_null("")

    phases = spans.sort("seq").unique(["sync", "engine", "phase", "start"], keep="first", maintain_order=True)
    again = pl.int_range(pl.len()).over("sync", "engine", "phase")
    phases = phases.with_columns(again.alias("life")).with_columns(pl.col("life").cum_max().over("sync", "engine"))
    rows = phases.group_by("sync", "engine", "life", maintain_order=True).agg(
        pl.col("step").last(),
        pl.col("start").min(),
        pl.col("version_before").first(),
        pl.col("version_after").last(),
        *(phase(name) for name in _PHASES),
        pl.col("bytes").max(),
        pl.col("in_flight").max(),
        pl.col("straddling").max(),
        pl.col("ok").all(),
        result("verify").alias("verified"),
        result("reset").alias("cache"),
        pl.col("detail").filter(pl.col("detail") != "").unique(maintain_order=True).str.join("; ").alias("detail"),
    )
    return rows.select(list(TABLES["syncs"].columns))


def commands(orders: pl.DataFrame) -> pl.DataFrame:
    """One row for each command: its issuer, its state ("given" before any answer), its duration."""
    given = pl.col("verb").is_not_null()
    answer = pl.col("state").drop_nulls().last()
    rows = (
        orders.sort("seq")
        .group_by("id", maintain_order=True)
        .agg(
            pl.col("time").filter(given).first(),
            *(pl.col(name).filter(given).first() for name in ("verb", "args", "issuer", "generation", "deadline")),
            answer.fill_null("given").alias("state"),
            pl.when(answer.is_in(list(TERMINAL))).then(pl.col("time").last()).alias("settled"),
            pl.col("detail").drop_nulls().last().fill_null("").alias("detail"),
            pl.col("data").drop_nulls().last().fill_null("{}").alias("data"),
        )
    )
    took = (pl.col("settled") - pl.col("time")).dt.total_microseconds() / 1e6
    return rows.with_columns(took.alias("seconds")).select(list(TABLES["commands"].columns))


def empty(name: str) -> pl.DataFrame:
    """A table without rows."""
    table = TABLES.get(name) or STORED[name]
    return pl.DataFrame(schema=schema(table.columns))
