"""`driftline evidence`: tables, pictures, config, audit log and a summary of a run in one folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from console.cli.verbs.replay import recorded_run
from console.errors import FAILED, OK, CommandError
from driftline.text import sanitize


def evidence(args: argparse.Namespace) -> int:
    """Write the folder and print its name. A live run is taken as far as it is recorded now.

    Where a screen could not be drawn, or a file not be copied, the rest is written all the same: stderr and the summary
    say what is not there, and the exit code is 1.
    """
    run = recorded_run(args.run, "evidence")
    from console.evidence.bundle import EvidenceError, bundle
    from console.store.load import load
    from console.tui.pictures import PicturesError, pictures

    out = Path(args.out) if args.out else run.snapshots / f"evidence-step{max(load(run).model.step, 0)}"

    # While the screens are drawn, Textual replaces sys.stderr by an object that reports itself as a terminal.
    err, live = sys.stderr, sys.stderr.isatty()

    def say(what: str) -> None:
        if live:
            print(f"\r\x1b[Kevidence: {what}", end="", file=err, flush=True)

    try:
        made = bundle(run, out, pictures, say)
    except (EvidenceError, PicturesError) as error:
        raise CommandError(str(error), FAILED) from error
    finally:
        if live:
            print("\r\x1b[K", end="", file=err, flush=True)
    print(made.path)
    for text in (*made.missing, *made.problems):
        print(f"driftline: {sanitize(text)}", file=sys.stderr)
    return FAILED if made.problems else OK
