"""Tables of a run: as Polars frames, as files, and through SQL. `import console.export` is the Python interface.

    from console.export import export, open_run, query, scan

    run = open_run("runs/demo-7f3a")                  # live, ended, or a copy of the directory
    scan(run, "metrics").select("step", "reward/mean").collect()
    export(run, Path("tokens.parquet"), "tokens", steps=(100, 200))
    query(run, "SELECT engine, avg(abs(rollout - trainer)) FROM tokens GROUP BY engine")

The journal (or its compacted tables) is the one source: every acknowledged frame is exported, whether or not a console
was attached. Tables and units are in `console.export.schema`. Tables of single frames are streamed: a
run larger than memory exports in bounded memory. So are the `metrics` of a run that reports once a step, in order;
those of a resumed run, or with several reports a step, are merged in memory, 8 bytes a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from console.export.schema import TABLES, VERSION
from driftline.frames import SCHEMA
from driftline.rundir import RunDir, find

if TYPE_CHECKING:
    import polars as pl

    from console.export.plan import TableRequest, TableResult
    from console.export.source import Source
    from driftline.client import Client

FORMATS: Final = (".parquet", ".csv", ".ndjson", ".arrow")
_ALL: Final = (None, None)


class ExportError(RuntimeError):
    """A table that was not written or read; the message is a whole sentence. Nothing is left under its name."""


class ExportReport(msgspec.Struct, frozen=True):
    """Result of an export: `rows` by `columns` (counts) at `path`; `damaged` bytes of the journal were skipped, and
    `missing` are clauses about segments that it lacks."""

    rows: int
    columns: int
    path: Path
    damaged: int = 0
    missing: tuple[str, ...] = ()


def open_run(name: str | None = None) -> RunDir:
    """The run named by id or path, else $DRIFTLINE_RUN, else the newest live one. Raises RunError."""
    return find(name)


def source_of(run: RunDir | Source) -> Source:
    """The source that the tables of a run are read from."""
    from console.export.source import Directory

    return Directory(run) if isinstance(run, RunDir) else run


def through_hub(client: Client, run_id: str) -> Source:
    """A live run as its hub has it, up to now, for a run whose journal is not on this machine."""
    from console.export.source import Hub

    return Hub(client, run_id)


def export(
    run: RunDir | Source,
    out: Path,
    table: str = "metrics",
    *,
    columns: Sequence[str] = (),
    steps: tuple[int | None, int | None] = _ALL,
    since: float | None = None,
    until: float | None = None,
    long: bool = False,
) -> ExportReport:
    """Write `table` of `run` to `out`; its extension picks the format (.parquet, .csv, .ndjson, .arrow).

    Only `columns`, steps `steps[0]` to `steps[1]`, and Unix times `since` to `until`, where given; both ends are
    included. `metrics` has one row a trainer step (`step`, `time`, `version`, every name of
    `driftline.catalog.metrics.METRICS`, null where absent, then the producers' own names, sorted), or with `long` one
    row a number. Times are UTC datetimes; NaN and infinities are strings in NDJSON ("NaN", "Infinity", "-Infinity"). A
    synthetic run has a column `synthetic` in every format and every choice.

    The file carries `driftline.run`, `.table`, `.tables` (version of the columns), `.schema` (of the frames),
    `.config_digest`, `.synthetic`, `.units` (JSON: column to unit), `.range` and, where the journal has a hole,
    `.missing` (JSON: a list of clauses): Parquet as key-value metadata, the
    other formats in `<name>.meta.json` beside them.

    Raises ExportError for an unknown table, column or extension, a place that cannot be written, a full disk.
    """
    from console.export import plan, write
    from console.export.source import SourceError

    source = source_of(run)
    request = plan.TableRequest(table=table, columns=tuple(columns), steps=steps, since=since, until=until, long=long)
    try:
        if table not in TABLES:
            raise plan.TableRequestError(f"unknown table '{table}'; allowed: {', '.join(TABLES)}")
        write.check(out)
        found = plan.open_table(source, request)
        missing = source.missing()
        rows = write.write(out, found, _metadata(source, request, found, missing))
    except (plan.TableRequestError, write.WriteError, SourceError) as error:
        raise ExportError(str(error)) from error
    return ExportReport(rows, len(found.columns), out, source.damage.bytes, tuple(missing))


def frame(run: RunDir | Source, table: str = "metrics", *, columns: Sequence[str] = ()) -> pl.DataFrame:
    """A table of a run in memory. Raises ExportError."""
    from console.export import plan
    from console.export.source import SourceError

    try:
        return plan.open_table(source_of(run), plan.TableRequest(table=table, columns=tuple(columns))).collect()
    except (plan.TableRequestError, SourceError) as error:
        raise ExportError(str(error)) from error


def scan(run: RunDir | Source, table: str = "metrics") -> pl.LazyFrame:
    """A table of a run as a LazyFrame: read when it is collected, in parts, with columns and filters pushed down.

    Raises ExportError.
    """
    from console.export import lazy, plan
    from console.export.source import SourceError

    try:
        return lazy.scan(source_of(run), table)
    except (plan.TableRequestError, SourceError) as error:
        raise ExportError(str(error)) from error


def query(run: RunDir | Source, sql: str) -> pl.DataFrame:
    """The answer to a SELECT over the tables of a run, by Polars SQL. Raises ExportError."""
    from console.export import lazy
    from console.export.source import SourceError

    try:
        return lazy.query(source_of(run), sql)
    except (lazy.QueryError, SourceError) as error:
        raise ExportError(str(error)) from error


def save(frame: pl.DataFrame, out: Path, metadata: dict[str, str]) -> None:
    """Write a frame as `export` writes a table. Raises ExportError."""
    from console.export import write

    try:
        write.save(frame, out, metadata)
    except write.WriteError as error:
        raise ExportError(str(error)) from error


def _metadata(source: Source, request: TableRequest, found: TableResult, missing: list[str]) -> dict[str, str]:
    limits = {"steps": list(request.steps), "since": request.since, "until": request.until}
    return {
        "driftline.run": source.id,
        "driftline.table": request.table,
        "driftline.tables": str(VERSION),
        "driftline.schema": str(SCHEMA),
        "driftline.config_digest": source.config_digest(),
        "driftline.synthetic": "true" if "synthetic" in found.columns and source.synthetic() else "false",
        "driftline.units": json.dumps({name: column.unit for name, column in found.columns.items() if column.unit}),
        "driftline.range": json.dumps(limits),
        **({"driftline.missing": json.dumps(missing)} if missing else {}),
    }


__all__ = [
    "FORMATS",
    "ExportError",
    "ExportReport",
    "export",
    "frame",
    "open_run",
    "query",
    "save",
    "scan",
    "through_hub",
]
