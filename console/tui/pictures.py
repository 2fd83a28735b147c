"""Every screen over a recording as an SVG: the real app on a terminal that exists in memory only."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from typing import Final

from console.replay.source import Recording
from console.settings.keys import TABS
from console.tui.app import ConsoleApp
from console.tui.open_replay import ReplayWatch
from console.tui.terminal.textual_patches import painted_text
from driftline.rundir import RunDir

SIZE: Final = (160, 48)
_SETTLED: Final = 3
"""Looks at an unchanged screen before it is drawn: panes that work in the background come late."""
_PATIENCE: Final = 200


def pictures(run: RunDir, start: int | None = None, size: tuple[int, int] = SIZE) -> Iterator[tuple[str, str]]:
    """(screen, SVG) for each screen, as of step `start` (None: the end of the recording)."""
    drawn: queue.Queue[tuple[str, str] | BaseException | None] = queue.Queue()

    async def session() -> None:
        watch = ReplayWatch(Recording(run, start=start))
        app = ConsoleApp(watch.source, watch=watch, sixteen=False)
        async with app.run_test(size=size) as pilot:
            while watch.recording.timeline is None:
                await pilot.pause(0.05)
            for tab in TABS:
                app.action_screen(tab.id)
                before, same = "", 0
                for _ in range(_PATIENCE):
                    await pilot.pause(0.1)
                    app.refresh_view()
                    now = painted_text(app)
                    same = same + 1 if now == before and now.strip() else 0  # on a busy machine it begins empty
                    before = now
                    if same >= _SETTLED:
                        break
                drawn.put((tab.id, app.export_screenshot(title=f"driftline {watch.recording.run}")))

    def work() -> None:
        try:
            asyncio.run(session())
            drawn.put(None)
        except BaseException as error:  # noqa: BLE001  handed on to who waits for the pictures
            drawn.put(error)

    # A thread of its own: who asks may be in an event loop already.
    thread = threading.Thread(target=work, name="pictures", daemon=True)
    thread.start()
    while (item := drawn.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item
    thread.join()
