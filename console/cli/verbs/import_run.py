"""`driftline import`: another framework's log as a run of its own, to be looked at, exported and compared."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from console.errors import FAILED, OK, CommandError
from console.formatting import to_json
from console.importing.import_run import ImportReport, import_log
from console.importing.rows import LogImportError
from console.launch.preflight import check_name
from driftline.rundir import runs_root
from driftline.text import plural, sanitize


def run_import(args: argparse.Namespace) -> int:
    """Read a log as a new run named --as; print its directory, how the log's names were mapped, and what was left out.

    The exit code is 1 where no name of the log is known: the run is there, but no verb can judge it.
    """
    name = check_name(args.name, "--as")
    try:
        report = import_log(Path(args.path), runs_root(), name, args.step, args.only)
    except LogImportError as error:
        raise CommandError(str(error), FAILED) from error
    if args.json:
        print(to_json(msgspec.to_builtins(report)))
    else:
        _print_report(report)
    if report.known:
        return OK
    print(
        f"driftline: none of its {len(report.kept)} names is known: they are kept, but nothing of {report.run} can be "
        "judged (names: driftline/catalog/metrics.py, driftline/catalog/framework_names.py)",
        file=sys.stderr,
    )
    return FAILED


def _print_report(report: ImportReport) -> None:
    print(f"run {report.run}  {report.path}")
    print(f"{report.kind}: {report.steps} steps, {report.first} to {report.last}")
    for name, target in report.mapped.items():
        label = report.labels.get(target)
        print(f"  {sanitize(name)} -> {target}" + (f"  [{label}]" if label else ""))
    if report.kept:
        print(f"kept under their own names: {', '.join(map(sanitize, report.kept))}")
    if report.token_steps:
        print(f"token pairs of {plural(report.token_steps, 'step')}: mismatch/* computed from all of them")
    for note in report.notes:
        print(f"note: {note}")
    for line in report.left_out:
        print(f"left out: {line}")
