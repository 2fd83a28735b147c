"""`driftline import`: another framework's log as a run of its own, to be looked at, exported and compared."""

from __future__ import annotations

import argparse
from pathlib import Path

import msgspec

from console.errors import FAILED, OK, CommandError
from console.formatting import to_json
from console.importing.import_run import Brought
from console.importing.import_run import bring as write
from console.importing.rows import BringError
from console.launch.preflight import check_name
from driftline.rundir import runs_root
from driftline.text import sanitize


def bring(args: argparse.Namespace) -> int:
    """Read --as a new run; print where it is, and what became of the log's names."""
    name = check_name(args.name, "--as")
    try:
        found = write(Path(args.path), runs_root(), name, args.step)
    except BringError as error:
        raise CommandError(str(error), FAILED) from error
    if args.json:
        print(to_json(msgspec.to_builtins(found)))
        return OK
    _tell(found)
    return OK


def _tell(found: Brought) -> None:
    print(f"run {found.run}  {found.path}")
    print(f"{found.kind}: {found.steps} steps, {found.first} to {found.last}")
    for name, target in found.mapped.items():
        print(f"  {sanitize(name)} -> {target}")
    if found.kept:
        print(f"kept under their own names: {', '.join(map(sanitize, found.kept))}")
    if found.damaged:
        print(f"{found.damaged} bytes could not be read and were left out")
