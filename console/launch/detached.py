"""The supervisor of a detached run: `python -m console.launch.detached RUN_DIR LOCK_FD`, by way of `standby.py`.

It holds the run's supervisor lock on LOCK_FD, starts the run, or goes on with it where another supervisor has left it,
and has a standby ready that does the same. `driftline.supervision` says which of the two: a record without a process
id is of a run that has not been started yet, and without a record the run has ended in order.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from console.errors import FAILED, OK, CommandError
from console.launch.foreground import Session
from console.launch.restarts import TAKEOVER
from console.process.signals import Signals
from driftline import config as configuration
from driftline import supervision
from driftline.config import HubConfig
from driftline.rundir import RunDir, RunError
from driftline.supervision import Supervision

MODULE: Final = "console.launch.detached"


def command(run: RunDir) -> list[str]:
    """The command of a supervisor of this run, without the descriptor of its lock."""
    return [sys.executable, "-P", "-m", MODULE, str(run.path)]


def main(arguments: list[str] | None = None) -> int:
    """Look after the run until it ends; returns the exit code of `driftline run`."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Supervisor of a detached run.")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("lock", type=int, metavar="LOCK_FD", help="descriptor of the run's supervisor lock")
    given = parser.parse_args(arguments)
    run = RunDir(given.run)
    os.set_inheritable(given.lock, False)
    record = supervision.read(run)
    if record is None:
        return OK
    # A terminal that is closed is nothing to it, even where it has been given one.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        return _supervise(run, record, given.lock)
    except (CommandError, RunError) as error:
        print(f"driftline: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, CommandError) else FAILED


def _supervise(run: RunDir, record: Supervision, lock: int) -> int:
    first, now = record.pid == 0, time.time()
    takeovers = () if first else (*(at for at in record.takeovers if at > now - TAKEOVER.window), now)
    record = replace(record, pid=os.getpid(), host=socket.gethostname(), started=now, takeovers=takeovers)
    with Signals() as signals, Session(run, signals, lines=False, record=record, lock=lock) as session:
        try:
            session.supervisor.keep_standby(command(run))
            if takeovers:
                signals.pause(TAKEOVER.pauses[min(len(takeovers), len(TAKEOVER.pauses)) - 1])
            hub = _hub(run)
            going = session.start(hub, steps=record.steps) if first else session.take_over(hub, steps=record.steps)
            return session.watch() if going else signals.exit_code
        except (CommandError, RunError):
            raise
        except BaseException:  # noqa: BLE001  whatever it was, printed below
            # A mistake of this program must not end the run, as leaving the session would: the standby goes on with it.
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(FAILED)


def _hub(run: RunDir) -> HubConfig:
    try:
        return configuration.load(run.config).hub
    except configuration.ConfigError as error:
        print(f"driftline: {error}; the hub is started with its defaults", file=sys.stderr, flush=True)
        return HubConfig()


if __name__ == "__main__":
    sys.exit(main())
