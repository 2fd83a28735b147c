"""`driftline attach`: the console on a live run. The only verb that imports a screen."""

from __future__ import annotations

import argparse
from pathlib import Path

from console.link import live_run
from console.outcome import NO_RUN, USAGE, Failure
from console.screen import on_terminal
from console.verbs.sentinels import alerts as read_alerts
from console.verbs.sentinels import read as read_rules
from driftline.rundir import find


def attach(args: argparse.Namespace) -> int:
    """Open the console; `q` leaves it, and the run goes on. Without a terminal it is refused: see `tail`, `status`.

    RUN may be on another machine (`ssh://[user@]host[:port]/path/to/run`: OpenSSH asks what it has to before the
    console opens), or be a connection file from elsewhere, which needs --key.

    --reference (several times for several seeds) names runs of this machine that the run is held against: drawn behind
    its charts, and judged on the parity screen.
    """
    reference = tuple(_known(name) for name in args.reference)
    rules, alerts = read_rules(args.rules), read_alerts(args)
    run = live_run(args.run, key=args.key, connection=args.connection)
    try:
        if not on_terminal():
            raise Failure("attach needs a terminal; without one: driftline tail, driftline status --json", USAGE)
        from console.tui.app import run_console
        from console.tui.guard import guards

        watching = guards(rules, alerts)
        return int(
            run_console(run, args.operate, marker=args.marker, fps=args.fps, guards=watching, reference=reference)
        )
    finally:
        run.close()


def _known(name: str) -> str:
    """The name of a reference run, which is looked at before the screen opens. Raises RunError or Failure."""
    if name.endswith(".parquet"):
        if not Path(name).is_file():
            raise Failure(f"--reference {name}: there is no such file", NO_RUN)
        return name
    return str(find(name).path)
