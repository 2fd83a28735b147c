"""Starting a detached run, and following it until it runs."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time
from typing import Final

from console.errors import FAILED, OK, CommandError
from console.launch import detached, standby
from console.launch.last_words import last_error
from console.process.signals import Signals
from console.status.progress import Progress
from driftline import supervision
from driftline.client import ClientError, Feed, attach
from driftline.frames import FrameError, RunState
from driftline.rundir import RunDir, RunError
from driftline.supervision import Supervision

_POLL: Final = 0.1
_TAKEOVER: Final = 10.0
"""Seconds without a supervisor after which none is to be expected any more."""


def start(run: RunDir, *, steps: int | None) -> None:
    """Start the supervisor of a detached run, in a session of its own: what becomes of this process is nothing to it.

    Raises CommandError.
    """
    try:
        # Without a process id: nothing has been started yet.
        record = Supervision(pid=0, host=socket.gethostname(), started=time.time(), detached=True, steps=steps)
        supervision.write(run, record)
        with open(run.logs / "supervisor.log", "ab") as log:
            subprocess.Popen(
                [
                    sys.executable, "-I", "-S", standby.__file__, str(run.supervisor_lock), *detached.command(run),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise CommandError(f"the supervisor cannot be started: {error.strerror or error}", FAILED) from error


def follow(run: RunDir, signals: Signals) -> int:
    """Show the run's start until it runs; exit code 0 then. A signal ends the following, not the run.

    Raises CommandError when it does not come to run.
    """
    progress, feed, state = Progress(), None, None
    path = shlex.quote(str(run.path))
    try:
        seen = time.monotonic()
        while not signals.pause(_POLL):
            now = time.monotonic()
            if run.supervised():
                seen = now
            record = supervision.read(run)
            if feed is None and run.live():
                feed = _open(run)
            state = _newest(feed, state)
            if state is not None and state.status not in ("starting", "failed"):
                progress.done()
                print(
                    f"run {run.id} is {state.status}, and needs neither this terminal nor this command any more\n"
                    f"look:   driftline attach {path} --operate\nend it: driftline stop {path}",
                    flush=True,
                )
                return OK
            over = record is None or now - seen > _TAKEOVER
            if over and (feed is None or not feed.wait(0.5)):
                why = state.detail if state is not None and state.status == "failed" else ""
                log = run.logs / "supervisor.log"
                raise CommandError(f"the run did not start: {why or last_error(log)} (log: {log})", FAILED)
            progress.update((state.detail if state is not None else "") or "starting the hub")
    finally:
        progress.done()
        if feed is not None:
            feed.close()
    print(f"run {run.id} goes on starting; end it: driftline stop {path}", file=sys.stderr, flush=True)
    return signals.exit_code


def _open(run: RunDir) -> Feed | None:
    try:
        return Feed(*attach(run, "viewer"), since=1, refresh=run.connection)
    except (ClientError, RunError):
        return None


def _newest(feed: Feed | None, before: RunState | None) -> RunState | None:
    for stamped in feed.drain() if feed is not None else ():
        try:
            frame = stamped.frame()
        except FrameError:
            continue
        if isinstance(frame, RunState):
            before = frame
    return before
