"""Ends what a killed trainer could not: `python -m engine.cluster.guard`, started and fed by
`engine.cluster.ray_cluster`.

A trainer that is killed with -9 runs no code of its own, and not all of Ray's helpers notice. This small process
holds the other end of a pipe; when the pipe closes, it waits a little for everything to go by itself and then kills
what is left, and removes the trainer's shared memory: a whole model. After an orderly close there is nothing left, and
it ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Final

from engine.cluster.processes import ProcessGroup
from engine.weights.shared_memory import left_behind, sweep

GRACE_S: Final = 10.0
PAUSE_S: Final = 0.5
PAUSE_MAX_S: Final = 60.0
"""Wait, in seconds, from one start of the guard to the next one; doubled for each more, up to the longest."""
GONE_S: Final = 5.0
"""Longest wait, in seconds, for a trainer whose end of the pipe is closed to be gone."""
SWEEPS_S: Final = 2.0
"""Seconds for which segments that are in use are tried again: those of other runs stay in use."""
ORDERLY: Final = b"null\n"
"""The last line of a trainer that ends in order."""
STALE_S: Final = 1.0
"""Segments younger than this, in seconds, are left to the next sweep: another trainer may be about to lock one."""


class Guard:
    """The trainer's end. A guard that has died is started again, by `keep`.

    `timeout`: seconds that everything has to go by itself once the trainer is gone.
    """

    def __init__(self, timeout: float = GRACE_S) -> None:
        self._timeout = timeout
        self._line = b""
        self._next, self._pause = 0.0, PAUSE_S
        # The watch over it has a thread of its own, beside those that the actors come and go on.
        self._lock = threading.RLock()
        self._child = self._start()

    def update(self, processes: ProcessGroup) -> None:
        """Send the processes and segments to end. Never raises: without the guard process the run goes on unguarded."""
        with self._lock:
            self._line = json.dumps(processes.dump()).encode() + b"\n"
            self._send()

    def keep(self) -> int | None:
        """Start the guard again if it has died, with what it was to end; returns the exit code of the dead one.

        Call it now and then. The pause before the next start doubles up to PAUSE_MAX_S. Raises OSError when there can
        be none now; the next call tries again.
        """
        with self._lock:
            code = self._child.poll()
            if code is None or time.monotonic() < self._next:
                return None
            self._next = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, PAUSE_MAX_S)
            self._child = self._start()
            self._send()
            return code

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: a Ctrl-C in the trainer's terminal is not for the guard.
        return subprocess.Popen(
            [sys.executable, "-m", "engine.cluster.guard", str(self._timeout)],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def _send(self) -> None:
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            self._child.stdin.write(self._line)
            self._child.stdin.flush()

    def close(self) -> None:
        """Let the guard see that the trainer is done, and wait for it. `keep` must not be called any more."""
        assert self._child.stdin is not None
        with suppress(BrokenPipeError):
            if not self._child.stdin.closed:
                self._child.stdin.write(ORDERLY)
            self._child.stdin.close()
        try:
            self._child.wait(3 * GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def main(timeout: float) -> None:
    """Adopt what comes on stdin; at its end, end it all.

    A supervisor that ends what a dead trainer left behind sends its signal to this process as well. The work is then
    done at once, without the timeout: such a supervisor kills in the end.
    """
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: asked.append(number))
    processes, trainer, orderly = ProcessGroup(), os.getppid(), False
    for line in sys.stdin:
        saved = json.loads(line)
        orderly = saved is None
        if saved is not None:
            processes.adopt(saved)
    processes.end(timeout, stop_waiting=lambda: bool(asked))
    # A killed process's files are closed one after the other: its lock on the shared memory may be held for a moment
    # after this pipe was closed.
    deadline = time.monotonic() + GONE_S
    while not orderly and os.getppid() == trainer and time.monotonic() < deadline:
        time.sleep(0.01)
    sweep(STALE_S)
    # And longer where another process looks at its memory just then, or sweeps too.
    deadline = time.monotonic() + SWEEPS_S
    while not orderly and left_behind() and time.monotonic() < deadline:
        time.sleep(0.1)
        sweep(STALE_S)


if __name__ == "__main__":
    main(float(sys.argv[1]))
