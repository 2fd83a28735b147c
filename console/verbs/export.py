"""`driftline export`: a table of a run, live or ended, as a Polars file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from console.export import ExportError
from console.export import export as write
from console.outcome import FAILED, OK, Failure
from driftline.rundir import find


def export(args: argparse.Namespace) -> int:
    """Write --table to --out and print `PATH: R rows, C columns`; on a failure nothing is left under that name."""
    try:
        report = write(find(args.run), Path(args.out), args.table)
    except ExportError as error:
        raise Failure(str(error), FAILED) from error
    print(f"{report.path}: {report.rows} rows, {report.columns} columns")
    if report.damaged:
        print(f"driftline: {report.damaged} bytes of the journal are damaged and were left out", file=sys.stderr)
    return OK
