"""Tables of a run as Polars files, from the journal of a live or an ended run.

The journal is the one source: what is exported is what was acknowledged, whether or not a console was attached. A
file appears complete under its name or not at all. Polars is imported when a table is written, not before.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from console.tables import TABLES, Row, Table
from driftline.config import digest
from driftline.frames import SCHEMA
from driftline.journal import Damage, read
from driftline.rundir import RunDir, RunError

if TYPE_CHECKING:
    import polars as pl

FORMATS: Final = (".parquet", ".csv", ".ndjson", ".arrow")


class ExportError(RuntimeError):
    """A table that was not written; the message is a whole sentence. Nothing is left under its name."""


class ExportReport(msgspec.Struct, frozen=True):
    """What was written: `rows` by `columns` (counts) at `path`; `damaged` bytes of the journal were skipped."""

    rows: int
    columns: int
    path: Path
    damaged: int = 0


def export(run: RunDir, out: Path, table: str = "metrics") -> ExportReport:
    """Write `table` of `run` to `out`; its extension picks the format (.parquet, .csv, .ndjson, .arrow).

    Tables: `metrics` (one row a trainer step: `step`, `time`, `version`, every name of `driftline.metrics.METRICS`,
    null where absent, then the producers' own names, sorted), `events`, `spans`, `fixes`, `engines`. Times are UTC
    datetimes. A synthetic run has a column `synthetic` in every format. Parquet carries `driftline.run`,
    `driftline.table`, `driftline.config_digest`, `driftline.schema` and `driftline.synthetic` as file metadata.

    Raises ExportError for an unknown table or extension, a place that cannot be written, a full disk.
    """
    if table not in TABLES:
        raise ExportError(f"unknown table '{table}'; allowed: {', '.join(TABLES)}")
    if out.suffix not in FORMATS:
        raise ExportError(f"{out}: unknown extension '{out.suffix}'; allowed: {', '.join(FORMATS)}")
    if out.is_dir() or not out.parent.is_dir():
        reason = "is a directory" if out.is_dir() else "there is no such directory"
        raise ExportError(f"{out}: cannot be written: {reason}")
    kind = TABLES[table]
    damage = Damage()
    rows, synthetic = kind.collect(read(run.journal, damage=damage))
    synthetic = synthetic or _labelled_synthetic(run)
    frame = _frame(kind, rows, synthetic=synthetic)
    _write(frame, out, _metadata(run, table, synthetic=synthetic))
    return ExportReport(frame.height, frame.width, out, damage.bytes)


def _frame(table: Table, rows: list[Row], *, synthetic: bool) -> pl.DataFrame:
    import polars as pl

    dtypes: dict[str, pl.DataType] = {
        "int": pl.Int64(),
        "float": pl.Float64(),
        "str": pl.String(),
        "bool": pl.Boolean(),
        "time": pl.Datetime("us", "UTC"),
    }
    extras = sorted({name for row in rows for name in row} - set(table.columns))
    kinds = {**table.columns, **dict.fromkeys(extras, table.extra)}
    columns: dict[str, pl.Series] = {}
    for name, kind in kinds.items():
        values: Iterable[object] = [row.get(name) for row in rows]
        if kind == "time":
            # Rounded, not truncated: a double holds a present-day time to a quarter of a microsecond.
            values = [None if value is None else round(float(str(value)) * 1e6) for value in values]
            columns[name] = pl.Series(name, values, dtype=pl.Int64()).cast(dtypes["time"])
        else:
            columns[name] = pl.Series(name, values, dtype=dtypes[kind])
    if synthetic:
        columns["synthetic"] = pl.repeat(True, len(rows), dtype=pl.Boolean(), eager=True)
    return pl.DataFrame(columns)


def _write(frame: pl.DataFrame, out: Path, metadata: dict[str, str]) -> None:
    import polars as pl

    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            _save(frame, file, out.suffix, metadata)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        # Polars reports some failures of the file below it (a full disk) as errors of its own.
        raise ExportError(f"{out}: cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _save(frame: pl.DataFrame, file: BinaryIO, suffix: str, metadata: dict[str, str]) -> None:
    match suffix:
        case ".parquet":
            frame.write_parquet(file, metadata=metadata)
        case ".csv":
            frame.write_csv(file)
        case ".ndjson":
            frame.write_ndjson(file)
        case ".arrow":
            frame.write_ipc(file)


def _metadata(run: RunDir, table: str, *, synthetic: bool) -> dict[str, str]:
    try:
        config = digest(run.config.read_text(encoding="utf-8"))
    except OSError:
        # A run of somebody's own trainer has no configuration file.
        config = ""
    return {
        "driftline.run": run.id,
        "driftline.table": table,
        "driftline.config_digest": config,
        "driftline.schema": str(SCHEMA),
        "driftline.synthetic": "true" if synthetic else "false",
    }


def _labelled_synthetic(run: RunDir) -> bool:
    try:
        return run.connection().synthetic
    except RunError:
        return False
