"""`driftline query`: SQL over the tables of a run."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from console.cli.verbs import on_disk
from console.connect.resolve import connect_client, open_target
from console.errors import FAILED, OK, USAGE, CommandError
from console.export import ExportError, save, through_hub
from console.export import query as ask
from console.formatting import to_json
from driftline.text import sanitize

if TYPE_CHECKING:
    import polars as pl

    from console.connect.target import Target

FORMATS: Final = ("table", "csv", "json", "parquet")
_WIDEST: Final = 60


def query(args: argparse.Namespace) -> int:
    """Print the answer as a table, as CSV or as one JSON array of objects, or write it to --out.

    JSON: times are ISO 8601, NaN and infinities strings.
    """
    form, out = args.format, Path(args.out) if args.out else None
    if form == "parquet" and (out is None or out.suffix != ".parquet"):
        raise CommandError("--format parquet is written to a file: add --out FILE.parquet", USAGE)
    try:
        with open_target(args, ended=True) as run:
            missing = on_disk.lacks_of(run)
            on_disk.print_lacks(missing)
            if run.directory is not None:
                answer = ask(run.directory, args.sql)
            else:
                with connect_client(run, "viewer") as client:
                    answer = ask(through_hub(client, run.id), args.sql)
            if out is not None:
                save(answer, out, _metadata(run, args.sql, missing))
                print(f"{out}: {answer.height} rows, {answer.width} columns")
                return OK
    except ExportError as error:
        raise CommandError(str(error), FAILED) from error
    _PRINT[form](answer)
    return OK


def _metadata(run: Target, sql: str, missing: list[str]) -> dict[str, str]:
    return {"driftline.run": run.id, "driftline.query": sql} | (
        {"driftline.missing": json.dumps(missing)} if missing else {}
    )


def _table(frame: pl.DataFrame) -> None:
    """Aligned columns, numbers to the right; nothing is left out."""
    texts = [[sanitize(_cell(value)) for value in column] for column in frame.iter_columns()]
    widths = [max([len(name), *map(len, cells)]) for name, cells in zip(frame.columns, texts, strict=True)]
    right = [dtype.is_numeric() for dtype in frame.dtypes]

    def line(cells: list[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    print(line(frame.columns))
    for row in zip(*texts, strict=True):
        print(line(list(row)))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def _csv(frame: pl.DataFrame) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows(frame.iter_rows())


def _json(frame: pl.DataFrame) -> None:
    print(to_json([{name: _plain(value) for name, value in row.items()} for row in frame.iter_rows(named=True)]))


def _plain(value: object) -> object:
    if value is None or isinstance(value, (int, float, str)):
        return value
    if isinstance(value, list):
        return [_plain(one) for one in value]
    isoformat = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)


_PRINT: Final = {"table": _table, "csv": _csv, "json": _json}
