"""`driftline stop`: ends a run in order, or by force."""

from __future__ import annotations

import argparse
import sys
import time

from console.connect.commands import send_command
from console.connect.resolve import connect_client, live_run
from console.connect.target import Target, find_target
from console.errors import NO_RUN, OK, TIMEOUT, USAGE, CommandError
from console.launch import children, ending
from console.launch.supervisor import Supervisor
from driftline.processes import alive
from driftline.rundir import RunDir, RunError


def stop(args: argparse.Namespace) -> int:
    """End the run in good order: the trainer finishes its step and writes a checkpoint, then engines, Ray and hub end.

    --wait: until it has ended. --force: wait --timeout seconds for that, then kill its processes. Without a hub (it is
    away) the trainer is asked by a signal, in the same order. Exit code 0 done, 1 refused (another user's run, or on
    another machine), 3 no such run, or one that has ended already, 4 not ended within the time of --wait.
    """
    if args.target and args.run and args.target != args.run:
        raise CommandError("give the run once: as an argument, or with --run", USAGE)
    args.run = args.target or args.run
    until = time.monotonic() + args.timeout
    run = find_target(args.run)
    try:
        directory = run.directory
        if directory is None:
            if args.force:
                raise CommandError(f"--force works where the run is: ssh there, and stop {run.id} there", USAGE)
            run.close()
            run = live_run(args.run)
        else:
            ending.check_ours(directory)
        _ask(run, args, until)
        if not (args.wait or args.force):
            print("stop: queued")
            return OK
        return _wait(run, args, until)
    finally:
        run.close()


def _end_with_own_hub(run: RunDir, until: float) -> None:
    """End a trainer that has neither hub nor supervisor, under a hub of this command: its last frames are recorded.

    Raises CommandError where nothing of the run lives.
    """
    trainer = children.find(run, "trainer")
    if trainer is None:
        if ending.sweep(run):
            return
        raise CommandError(_already(run.id), NO_RUN)
    with Supervisor(run) as supervisor:
        if supervisor.start_hub(cancelled=lambda: time.monotonic() > until):
            ending.ask_without_hub(run)
        while alive(trainer) and time.monotonic() <= until:
            supervisor.keep_hub()
            time.sleep(0.1)


def _already(run: str) -> str:
    return f"run {run} has ended already; see: driftline status --run {run}"


def _ask(run: Target, args: argparse.Namespace, until: float) -> None:
    directory = run.directory
    if directory is not None and not run.live():
        if (args.wait or args.force) and not directory.supervised():
            _end_with_own_hub(directory, until)
            return
        whom = ending.ask_without_hub(directory)
        if not whom:
            if ending.sweep(directory):
                return
            raise CommandError(_already(run.id), NO_RUN)
        print(f"driftline: run {run.id} has no hub now; {whom}, was asked by a signal", file=sys.stderr)
        return
    try:
        with connect_client(run, "operator") as client:
            send_command(client, args, "stop", {}, "stop")
    except CommandError as error:
        # The run may end before its last acknowledgement arrives here; that is the purpose of the command.
        if not args.force and (not args.wait or run.live()):
            raise
        if run.live():
            print(f"driftline: {error}", file=sys.stderr)


def _wait(run: Target, args: argparse.Namespace, until: float) -> int:
    directory = run.directory
    while not _ended(run, directory):
        if time.monotonic() > until:
            if not args.force or directory is None:
                hint = "" if directory is None else "; --force kills its processes"
                raise CommandError(f"run {run.id} has not ended within {args.timeout:g} s{hint}", TIMEOUT)
            count = ending.force(directory)
            print(f"run {run.id} has not ended within {args.timeout:g} s: {count} processes were killed")
            return OK
        time.sleep(0.1)
    if directory is not None and (count := ending.sweep(directory)):
        print(f"driftline: {count} processes that were left of it were ended", file=sys.stderr)
    print(f"run {run.id} has ended")
    return OK


def _ended(run: Target, directory: RunDir | None) -> bool:
    try:
        return not run.live() if directory is None else ending.ended(directory)
    except RunError:  # a filesystem that gives no locks any more
        return False
