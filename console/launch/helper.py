"""A process beside the run that the run does not need, started again for ever when it has died."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from console.launch.restarts import Backoff, Restarts


class Helper:
    """`start` starts it (it may raise OSError), `died` reports a death, with the clause of when it starts again."""

    def __init__(self, backoff: Backoff, start: Callable[[], object], died: Callable[[str], None]) -> None:
        self._restarts = Restarts(backoff)
        self._start, self._died = start, died

    def turn(self, code: int | None) -> None:
        """Call it often with the exit code of the process, None while it lives."""
        if code is None:
            return
        again = self._restarts
        if not again.waiting:
            pause = again.died(time.monotonic())
            self._died(again.text(pause))
        elif again.due(time.monotonic()):
            again.started()
            # What keeps a process from being started (no memory, no descriptors) may pass; the dead one counts again.
            with contextlib.suppress(OSError):
                self._start()
