"""`driftline import`: another framework's log as a run of its own, to be looked at, exported and compared."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from console.errors import FAILED, OK, CommandError
from console.formatting import to_json
from console.importing.import_run import ImportReport, import_log
from console.importing.rows import LogImportError
from console.launch.preflight import check_name
from driftline.rundir import runs_root
from driftline.text import sanitize


def run_import(args: argparse.Namespace) -> int:
    """Read a log as a new run named --as; print its directory and how the log's names were mapped."""
    name = check_name(args.name, "--as")
    try:
        report = import_log(Path(args.path), runs_root(), name, args.step)
    except LogImportError as error:
        raise CommandError(str(error), FAILED) from error
    if args.json:
        print(to_json(msgspec.to_builtins(report)))
        return OK
    _print_report(report)
    return OK


def _print_report(report: ImportReport) -> None:
    print(f"run {report.run}  {report.path}")
    print(f"{report.kind}: {report.steps} steps, {report.first} to {report.last}")
    for name, target in report.mapped.items():
        print(f"  {sanitize(name)} -> {target}")
    if report.kept:
        print(f"kept under their own names: {', '.join(map(sanitize, report.kept))}")
    if report.damaged:
        print(f"{report.damaged} bytes could not be read and were left out")
