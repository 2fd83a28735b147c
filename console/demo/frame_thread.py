"""Frames handed to a thread of their own: what is done about them may wait, and who looks after the run may not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from console.errors import CommandError
from driftline.frames import Frame

GRACE: Final = 10.0
"""Seconds for the thread to end at the end of the run, after `cancel`."""


class FrameThread:
    """Calls `handle` with each frame, in order. A CommandError of it is raised by the next `put`, or on leaving.

    `cancel` is called on leaving, a second after the last frame: it has to end a wait of `handle`.
    """

    def __init__(self, handle: Callable[[Frame], None], *, cancel: Callable[[], None] = lambda: None) -> None:
        self._handle, self._cancel = handle, cancel
        self._frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._error: CommandError | None = None
        self._thread = threading.Thread(target=self._run, name="demo", daemon=True)

    def __enter__(self) -> FrameThread:
        self._thread.start()
        return self

    def put(self, frame: Frame) -> None:
        """Hand a frame over; does not wait. Raises CommandError."""
        if self._error is not None:
            raise self._error
        self._frames.put(frame)

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self._frames.put(None)
        self._thread.join(1.0)
        self._cancel()
        self._thread.join(GRACE)
        if self._error is not None and kind is None:
            raise self._error

    def _run(self) -> None:
        while (frame := self._frames.get()) is not None:
            try:
                self._handle(frame)
            except CommandError as error:
                self._error = error
                return
