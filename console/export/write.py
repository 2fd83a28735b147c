"""Writes a table's parts into a file, part by part: complete under its name, or no file at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final

import polars as pl
from polars.io.plugins import register_io_source

from console.export import derived, ndjson
from console.export.plan import TableResult
from console.export.read_ahead import ahead
from console.formatting import to_json
from console.process import ending

FORMATS: Final = (".parquet", ".csv", ".ndjson", ".arrow")
_SLICE: Final = 65_536
SIDECAR: Final = ".meta.json"
"""Suffix of the metadata file of formats that cannot hold metadata: `steps.csv` in `steps.csv.meta.json`."""


class WriteError(RuntimeError):
    """A file that was not written; the message is a sentence. Nothing is left under its name."""


def check(out: Path) -> None:
    """Raise WriteError for a place or an extension that cannot be written."""
    if out.suffix not in FORMATS:
        raise WriteError(f"{out}: unknown extension '{out.suffix}'; allowed: {', '.join(FORMATS)}")
    if out.is_dir() or not out.parent.is_dir():
        reason = "is a directory" if out.is_dir() else "there is no such directory"
        raise WriteError(f"{out}: cannot be written: {reason}")


def sidecar(out: Path) -> Path:
    """Path of the metadata file of a format that cannot hold metadata."""
    return out.with_name(out.name + SIDECAR)


def write(out: Path, table: TableResult, metadata: dict[str, str]) -> int:
    """Write a table and return its rows; `metadata` goes into the file, or beside it. Raises WriteError.

    The parts are written as they come. If the table turns out not to be streamable, it is made once more.
    """
    return _whole(out, metadata, lambda path: _written(path, out.suffix, table, metadata))


def save(frame: pl.DataFrame, out: Path, metadata: dict[str, str]) -> None:
    """Write a frame that is in memory. Raises WriteError."""

    def written(path: Path) -> int:
        if out.suffix == ".ndjson":
            return _lines(path, TableResult({}, frame.iter_slices(_SLICE)))
        _sunk(frame.lazy(), path, out.suffix, metadata)
        return frame.height

    _whole(out, metadata, written)


def _whole(out: Path, metadata: dict[str, str], written: Callable[[Path], int]) -> int:
    """Write under a temporary name, and rename to `out` when complete."""
    check(out)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}")
    beside = temporary.with_name(temporary.name + SIDECAR)
    try:
        with ending.temporary(temporary), ending.temporary(beside):
            rows = written(temporary)
            if out.suffix != ".parquet":
                with beside.open("x", encoding="utf-8") as file:
                    file.write(to_json(metadata) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, sidecar(out))
            os.replace(temporary, out)
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror or error}") from error
    except pl.exceptions.PolarsError as error:
        # Polars reports some failures of the file below it (a full disk) as errors of its own.
        raise WriteError(f"{out}: cannot be written: {_one_line(error)}") from error
    return rows


class _Reader:
    """Passes parts to Polars, counts their rows, and keeps errors of reading apart from those of writing."""

    def __init__(self, parts: Iterator[pl.DataFrame]) -> None:
        self._parts = parts
        self.rows = 0
        self.error: Exception | None = None

    def __call__(
        self,
        with_columns: list[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # noqa: ARG002 - a hint
    ) -> Iterator[pl.DataFrame]:
        made = ahead(self._parts)
        try:
            for part in made:
                self.rows += part.height
                kept = part if n_rows is None else part.head(n_rows)
                if n_rows is not None:
                    n_rows -= kept.height
                kept = kept if predicate is None else kept.filter(predicate)
                yield kept if with_columns is None else kept.select(with_columns)
                if n_rows == 0:
                    return
        except Exception as error:
            self.error = error  # Polars would wrap it in one of its own
            raise
        finally:
            made.close()


def _written(path: Path, suffix: str, table: TableResult, metadata: dict[str, str]) -> int:
    if suffix == ".ndjson":
        return _lines(path, table)
    reader = _Reader(table.parts)
    lazy = register_io_source(reader, schema=table.schema)
    try:
        _sunk(lazy, path, suffix, metadata)
    except Exception:
        if isinstance(reader.error, derived.OutOfOrderError) and table.again is not None:
            path.unlink(missing_ok=True)
            return _written(path, suffix, table.again(), metadata)
        if reader.error is not None:
            raise reader.error from None
        raise
    return reader.rows


def _lines(path: Path, table: TableResult) -> int:
    rows = 0
    try:
        with path.open("xb") as file, closing(ahead(table.parts)) as parts:
            for part in parts:
                file.write(ndjson.lines(part))
                rows += part.height
            file.flush()
            os.fsync(file.fileno())
    except derived.OutOfOrderError:
        if table.again is None:
            raise
        path.unlink(missing_ok=True)
        return _lines(path, table.again())
    return rows


def _sunk(lazy: pl.LazyFrame, path: Path, suffix: str, metadata: dict[str, str]) -> None:
    """Write a new file with Polars and force it to the disk.

    Polars gets an open file: by its path it may create it again after the table has failed and the file was removed.
    """
    with path.open("xb") as file:
        _SINKS[suffix](lazy, file, metadata)
        os.fsync(file.fileno())


def _parquet(lazy: pl.LazyFrame, file: BinaryIO, metadata: dict[str, str]) -> None:
    lazy.sink_parquet(file, metadata=metadata, engine="streaming")


def _csv(lazy: pl.LazyFrame, file: BinaryIO, metadata: dict[str, str]) -> None:  # noqa: ARG001 - has no room for it
    lazy.sink_csv(file, engine="streaming")


def _arrow(lazy: pl.LazyFrame, file: BinaryIO, metadata: dict[str, str]) -> None:  # noqa: ARG001 - no way through Polars
    lazy.sink_ipc(file, engine="streaming")


_SINKS: Final[dict[str, Callable[[pl.LazyFrame, BinaryIO, dict[str, str]], None]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".arrow": _arrow,
}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
