"""Textual's wait for an idle process, replaced in these tests by a wait for work done and drawn.

`Pilot.pause()`, `Pilot.press()` and the snapshot fixture wait until the process uses no processor time for a slice of
20 ms: each takes that long at least, and on a busy machine up to a second. What the tests mean by it is a state, not a
time: no message is left in any queue, no callback is due, no one-shot worker thread is under way, and what all of
these changed is drawn.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Queue
from typing import Any

from textual._context import active_app
from textual.app import App
from textual.pilot import Pilot

FOREVER = frozenset({"reader"})
"""Names of workers that end with the app: none of them is waited for."""
WORKERS_S = 0.1
"""As long as this a worker is waited for: some tests hold one back on purpose."""
ROUNDS = 100


def busy(app: App[Any]) -> bool:
    """Whether a message or a callback waits to be handled, by the app or any widget of any screen."""
    for pump in (app, *app._registry):
        queue: Queue[Any] | None = pump._message_queue
        if pump._next_callbacks or (queue is not None and not queue.empty()):
            return True
    return False


def working(app: App[Any]) -> bool:
    """Whether a one-shot worker is under way, or a new size waits for Textual's timer."""
    if app._resize_event is not None:
        return True
    return any(not worker.is_finished and worker.name not in FOREVER for worker in app.workers)


async def handled(*_: float) -> None:
    """Wait until the app of this context has handled and drawn everything; takes the place of `wait_for_idle`."""
    app = active_app.get()
    pilot = Pilot(app)
    until = time.monotonic() + WORKERS_S
    for _round in range(ROUNDS):
        if not app._running or not app.screen_stack or not await pilot._wait_for_screen():
            return
        app.screen._on_timer_update()
        if busy(app):
            continue
        if not working(app) or time.monotonic() > until:
            return
        await asyncio.sleep(0.001)
