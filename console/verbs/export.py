"""`driftline export`: a table of a run, live or ended, as a Polars file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from console.export import ExportError, through_hub
from console.export import export as write
from console.link import connected, reached
from console.outcome import FAILED, OK, USAGE, Failure
from console.verbs.ranges import moment, steps


def export(args: argparse.Namespace) -> int:
    """Write --table to --out and print `PATH: R rows, C columns`; on a failure nothing is left under that name.

    A run of this machine is read from its directory; one of another machine from its hub, page by page.
    """
    try:
        asked = {
            "columns": tuple(name.strip() for name in (args.columns or "").split(",") if name.strip()),
            "steps": steps(args.steps),
            "since": moment(args.since),
            "until": moment(args.until),
        }
    except ValueError as error:
        raise Failure(str(error), USAGE) from error
    try:
        with reached(args, ended=True) as run:
            if run.directory is not None:
                report = write(run.directory, Path(args.out), args.table, long=args.long, **asked)
            else:
                with connected(run, "viewer") as client:
                    source = through_hub(client, run.id)
                    report = write(source, Path(args.out), args.table, long=args.long, **asked)
    except ExportError as error:
        raise Failure(str(error), FAILED) from error
    print(f"{report.path}: {report.rows} rows, {report.columns} columns")
    warn_of(report.damaged)
    return OK


def warn_of(damaged: int) -> None:
    """Say on stderr that a journal was not whole."""
    if damaged:
        print(f"driftline: {damaged} bytes of the journal are damaged and were left out", file=sys.stderr)
