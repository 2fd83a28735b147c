"""`driftline replay`: a recorded run on the console's screens, from any step and at any speed."""

from __future__ import annotations

import argparse
from pathlib import Path

from console.cli.verbs.sentinels import read_rules
from console.connect.resolve import local_run_dir, newest_ended
from console.errors import NO_RUN, USAGE, CommandError
from console.launch.console_child import on_terminal
from console.process import fast_start
from console.tui.terminal.splash import Splash
from driftline.rundir import RunDir


def recorded_run(name: str | None, what: str) -> RunDir:
    """A run directory with a recording; with no name the newest live run, else the newest one.

    `what` works on its files. Raises CommandError, RunError.
    """
    given = RunDir(Path(name).resolve()) if name is not None and Path(name).is_dir() else None
    run = given or newest_ended(name) or local_run_dir(name, what)
    from console.recorded.blocks import run_segments

    if not run_segments(run):
        raise CommandError(f"{run.path}: nothing is recorded there: no journal and no Parquet", NO_RUN)
    return run


def replay(args: argparse.Namespace) -> int:
    """Show a recorded run. Without --from its last state is shown, paused; space plays it from its beginning.

    `space` plays and stops, `.` and `,` go a step on and back, `>` and `<` change the speed, `:goto STEP` goes there;
    all else is as in attach. The sentinels check the played frames, but ring no bell and run no command.
    """
    if not on_terminal():
        raise CommandError("replay needs a terminal; without one: driftline export, driftline query", USAGE)
    with Splash(f"opening {args.run or 'the newest run'}"), fast_start.starting():
        run = recorded_run(args.run, "replay")
        from console.sentinels.notify import Alerts
        from console.tui.open_replay import run_replay
        from console.tui.watch.guard import guards

        watching = guards(read_rules(args.rules), Alerts())
        playing = args.start is not None or args.speed is not None
        start = args.start if args.start is not None else (0 if playing else None)
        return int(
            run_replay(
                run, start=start, speed=args.speed or 1.0, playing=playing, settings=args.settings, guards=watching
            )
        )
