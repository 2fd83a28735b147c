"""`driftline export`: a table of a run, live or ended, as a Polars file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from console.export import ExportError
from console.export import export as write
from console.link import reached
from console.outcome import FAILED, OK, Failure


def export(args: argparse.Namespace) -> int:
    """Write --table to --out and print `PATH: R rows, C columns`; on a failure nothing is left under that name."""
    with reached(args) as run:
        if run.directory is None:
            raise Failure(f"export reads the journal of run {run.id}, which is not on this machine: run it there")
        try:
            report = write(run.directory, Path(args.out), args.table)
        except ExportError as error:
            raise Failure(str(error), FAILED) from error
    print(f"{report.path}: {report.rows} rows, {report.columns} columns")
    if report.damaged:
        print(f"driftline: {report.damaged} bytes of the journal are damaged and were left out", file=sys.stderr)
    return OK
