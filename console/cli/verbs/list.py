"""`driftline list`: the runs of this folder, newest first. Reads file names and one small file a run, nothing else."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from console.errors import OK
from driftline.rundir import RunDir, RunError, list_runs, runs_root
from driftline.text import sanitize


def print_runs(args: argparse.Namespace) -> int:
    """List runs. With --json one array of {"run", "path", "live", "started", "synthetic"}; `started` is Unix time, and
    `live` null (a "?") where its filesystem gives no locks: then stderr says what to do.

    A hub that was restarted on an old run counts as its start. Without any run the table is empty and the exit
    code still 0: an empty list is an answer.
    """
    rows = [_row(run) for run in list_runs()]
    if args.json:
        print(json.dumps(rows))
        return OK
    if not rows:
        print(f"no runs in {runs_root()}; start one with: driftline run configs/demo.toml")
        return OK
    width = max(len(row["run"]) for row in rows)
    for row in rows:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["started"]))
        label = "  synthetic" if row["synthetic"] else ""
        state = {True: "live", False: "ended"}.get(row["live"], "?")
        print(sanitize(f"{row['run']:{width}}  {state:5}  {started}  {_near(row['path'])}{label}"))
    return OK


def _row(run: RunDir) -> dict[str, Any]:
    try:
        connection = run.connection()
        started, synthetic = connection.started, connection.synthetic
    except RunError:
        # No hub ever came up, or its file is damaged: the directory is listed all the same.
        started, synthetic = run.path.stat().st_mtime, False
    return {
        "run": run.id,
        "path": str(run.path),
        "live": _live(run),
        "started": started,
        "synthetic": synthetic,
    }


def _live(run: RunDir) -> bool | None:
    """None where it cannot be known; the reason goes to stderr."""
    try:
        return run.live()
    except RunError as error:
        print(f"driftline: {error}", file=sys.stderr)
        return None


def _near(path: str) -> str:
    """The path as short as it can be written from here."""
    return min(path, os.path.relpath(path), key=len)
