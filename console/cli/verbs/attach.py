"""`driftline attach`: the console on a live run. The only verb that imports a screen."""

from __future__ import annotations

import argparse
import contextlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from console.errors import NO_RUN, USAGE, CommandError
from console.launch.console_child import on_terminal
from console.process import fast_start
from console.tui.terminal.splash import Splash
from driftline.rundir import RunError, find

if TYPE_CHECKING:
    from console.connect.target import Target
    from console.tui.watch.guard import Guards


def attach(args: argparse.Namespace) -> int:
    """Open the console; `q` leaves it, and the run goes on. Fails without a terminal: see `tail`, `status`.

    RUN may be on another machine (`ssh://[user@]host[:port]/path/to/run`: OpenSSH asks its questions before the
    console opens), or be a connection file from elsewhere, which needs --key.

    Several runs are watched at once: the first is shown, `w` lists them, `o` draws another over the charts.

    --reference (several times for several seeds) names runs of this machine to compare with: drawn behind its charts,
    and judged on the parity screen.
    """
    with contextlib.ExitStack() as stack:
        if on_terminal() and not any(name.startswith("ssh://") for name in args.runs):  # ssh may have to ask something
            stack.enter_context(Splash(f"opening {', '.join(args.runs) or 'the newest live run'}"))
        stack.enter_context(fast_start.starting())
        reference = tuple(_reference_run(name) for name in args.reference)
        if len(args.runs) > 1 and args.connection:
            raise CommandError("--connection FILE is one run; several are given by their names", USAGE)
        runs = []
        for name in dict.fromkeys(args.runs) or [None]:
            run = _open_run(name, args)
            stack.callback(run.close)
            runs.append(run)
        if not on_terminal():
            raise CommandError("attach needs a terminal; without one: driftline tail, driftline status --json", USAGE)
        from console.tui.open_live import run_console

        return int(run_console(runs, args.operate, args.settings, partial(_guards, args), reference))


def _guards(args: argparse.Namespace) -> Guards:
    """The sentinels as the arguments say. Raises CommandError."""
    from console.cli.verbs.sentinels import read_alerts, read_rules
    from console.tui.watch.guard import guards

    return guards(read_rules(args.rules), read_alerts(args))


def _open_run(name: str | None, args: argparse.Namespace) -> Target:
    """The run named. If none is named and none is live, the error names the newest recorded one."""
    from console.connect.resolve import live_run, newest_ended, run_argument

    try:
        return live_run(name, key=args.key, connection=args.connection)
    except RunError as error:
        recorded = newest_ended(name)
        if recorded is None:
            raise
        text = f"{error}; the newest that was recorded: driftline replay {run_argument(recorded)}"
        raise CommandError(text, NO_RUN) from error


def _reference_run(name: str) -> str:
    """The name of a reference run, checked before the screen opens. Raises RunError or CommandError."""
    if name.endswith(".parquet"):
        if not Path(name).is_file():
            raise CommandError(f"--reference {name}: there is no such file", NO_RUN)
        return name
    return str(find(name).path)
