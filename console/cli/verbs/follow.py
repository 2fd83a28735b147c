"""`driftline follow`: another framework's run, live, by the files that it writes; nothing is installed in the run."""

from __future__ import annotations

import argparse
import shlex
import sys
import threading
from pathlib import Path
from typing import Final

from console.errors import FAILED, OK, CommandError
from console.following.follow import Follower
from console.importing.import_run import PICKLES
from console.importing.rows import LogImportError
from console.launch.preflight import check_name, make_run
from console.launch.supervisor import Supervisor
from console.process.signals import Signals
from console.status.progress import Progress

ENDED_S: Final = 10.0
"""What was read is given so long to be taken by the hub,"""
INTERRUPTED_S: Final = 0.5
"""and so long after a signal: a verb ends within two seconds of it."""


def follow(args: argparse.Namespace) -> int:
    """Read a log and token files now and as they grow, as a run of its own that consoles attach to.

    A path that is not there yet is waited for. Exit code 0 with --once, once all that is there was sent; 128 + the
    signal's number after ctrl-C, SIGTERM or SIGHUP, which also end in order; 1 for files that cannot be followed.
    """
    name = check_name(args.name, "--as")
    path = Path(args.path)
    if path.suffix in PICKLES or (path.exists() and not path.is_dir() and not path.is_file()):
        raise CommandError(f"{path}: not a log that can be followed: neither a folder nor a log file")
    made = make_run(name)
    with Signals() as signals, Supervisor(made) as supervisor:
        if not supervisor.start_hub(cancelled=signals.__bool__):
            return signals.exit_code
        print(
            f"run {made.id}  {made.path}\n"
            f"follows {path}; nothing is written there\n"
            f"look:   driftline attach {shlex.quote(str(made.path))}\n"
            f"ctrl-C ends the following; the run itself goes on",
            flush=True,
        )
        progress, steps = Progress(), Progress(plain=False)

        def stopped() -> bool:
            for news in filter(None, [supervisor.keep_hub()]):
                steps.done()
                print(f"driftline: {news}", file=sys.stderr, flush=True)
            return bool(signals)

        follower = Follower(made, path, step=args.step, only=args.only, stopped=stopped)
        try:
            while not stopped():
                _step(follower, args.once, signals)
                if args.once:
                    break
                if follower.waiting:
                    progress.update(f"waiting: {follower.waiting}")
                else:
                    steps.update(f"step {follower.last_step}")
                signals.pause(0.2)
        except LogImportError as error:
            raise CommandError(str(error), FAILED) from error
        finally:
            steps.done()
            taken = follower.close(INTERRUPTED_S if signals else ENDED_S)
        if args.once and follower.waiting:
            raise CommandError(f"nothing was followed: {follower.waiting}", FAILED)
        if not taken and not signals:  # stopped in the middle of a log: the rest is still in it
            raise CommandError("the hub did not take all that was read", FAILED)
    return signals.exit_code if signals else OK


def _step(follower: Follower, ended: bool, signals: Signals) -> None:
    """Have the files looked at once, on a thread: a log may be long, and a signal is not to wait for its end.

    Raises LogImportError.
    """
    failures: list[Exception] = []

    def look() -> None:
        try:
            follower.step(ended=ended)
        except Exception as error:  # noqa: BLE001  raised again below, in the thread that can end the command
            failures.append(error)

    thread = threading.Thread(target=look, name="following", daemon=True)
    thread.start()
    while thread.is_alive() and not signals:
        thread.join(0.05)
    if failures:
        raise failures[0]
