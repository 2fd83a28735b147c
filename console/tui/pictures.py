"""Every screen over a recording as an SVG: the real app on a terminal that exists in memory only.

A screen that fails to draw ends the app that it is in, and one that does not come to an end keeps it: the screens after
it are drawn by another app, in a thread of its own.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Final

from textual.pilot import Pilot

from console.evidence.bundle import Picture
from console.replay.source import Recording
from console.settings.keys import TABS, Where
from console.tui.app import ConsoleApp
from console.tui.open_replay import ReplayWatch
from console.tui.terminal.textual_patches import painted_text
from driftline.rundir import RunDir

SIZE: Final = (160, 48)
SCREEN_SECONDS: Final = 60.0
"""Longest time for one screen; one of a large run on a busy machine takes two."""
_END_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 1.0
"""Longest wait for the end of an app; the second where its pictures are not wanted any more."""
_SETTLED: Final = 3
"""Looks at an unchanged screen before it is drawn: panes that work in the background come late."""
_PATIENCE: Final = 200


class PicturesError(RuntimeError):
    """A recording of which no screen can be drawn; the message is a clause."""


ALL: Final[tuple[Where, ...]] = tuple(tab.id for tab in TABS)


def pictures(
    run: RunDir, start: int | None = None, size: tuple[int, int] = SIZE, screens: Sequence[Where] = ALL
) -> Iterator[Picture]:
    """Each of `screens`, as of step `start` (None: the end of the recording), with its SVG or with why there is none.

    Take all of them: what draws goes on until the last is drawn. Raises PicturesError where that is not a matter of a
    screen.
    """
    left = list(screens)
    while left:
        session = _Session(run, start, size, tuple(left))
        try:
            for screen in tuple(left):
                picture = session.next_picture(screen, SCREEN_SECONDS)
                left.remove(screen)
                yield picture
                if picture.problem:
                    break
        except BaseException:  # ctrl-C: an app that goes on while Python ends prints what it cannot do any more
            session.stop()
            raise
        session.end()


class _Session:
    """One app that draws screens, one after the other, in a thread of its own until one of them fails."""

    def __init__(self, run: RunDir, start: int | None, size: tuple[int, int], screens: Sequence[Where]) -> None:
        self._streams = sys.stdout, sys.stderr  # Textual replaces them as long as the app runs
        self._opened = threading.Event()
        self._drawn: queue.Queue[str | BaseException] = queue.Queue()
        self._stopped = threading.Event()
        self._app: ConsoleApp | None = None
        # A thread of its own: who asks may be in an event loop already.
        self._thread = threading.Thread(
            target=self._draw, args=(run, start, size, screens), name="pictures", daemon=True
        )
        self._thread.start()
        self._opened.wait()

    def next_picture(self, screen: str, patience: float) -> Picture:
        """The picture of the next screen, which is `screen`."""
        try:
            item = self._drawn.get(timeout=patience)
        except queue.Empty:
            return Picture(screen, problem=f"not drawn within {patience:g} s")
        if isinstance(item, str):
            return Picture(screen, item)
        if isinstance(item, PicturesError) or not isinstance(item, Exception):
            raise item
        return Picture(screen, problem=" ".join(f"{type(item).__name__}: {item}".split()))

    def stop(self) -> None:
        """Have the app end before the next screen, and wait a second for that."""
        self._stopped.set()
        if self._app is not None:
            self._app.error_console.quiet = True  # it is left in the middle of whatever it does
        self._thread.join(_STOP_SECONDS)
        sys.stdout, sys.stderr = self._streams

    def end(self) -> None:
        """Wait for the end of the app; one that does not come to it is left to the end of the process."""
        self._thread.join(_END_SECONDS)
        sys.stdout, sys.stderr = self._streams  # which such an app does not give back

    def _draw(self, run: RunDir, start: int | None, size: tuple[int, int], screens: Sequence[Where]) -> None:
        try:
            asyncio.run(self._session(run, start, size, screens))
        except BaseException as error:  # noqa: BLE001  handed on to who waits for the pictures
            self._drawn.put(error)
        finally:
            self._opened.set()

    async def _session(self, run: RunDir, start: int | None, size: tuple[int, int], screens: Sequence[Where]) -> None:
        watch = ReplayWatch(Recording(run, start=start))
        app = ConsoleApp(watch.source, watch=watch, sixteen=False)
        self._app = app
        async with app.run_test(size=size) as pilot:
            while watch.recording.timeline is None:
                if watch.recording.trouble:
                    raise PicturesError(watch.recording.trouble)
                if self._stopped.is_set():
                    return
                await pilot.pause(0.05)
            self._opened.set()
            for screen in screens:
                app.action_screen(screen)
                before, same = "", 0
                for _ in range(_PATIENCE):
                    if self._stopped.is_set():
                        return
                    await _pause(app, pilot)
                    app.refresh_view()
                    now = painted_text(app)
                    same = same + 1 if now == before and now.strip() else 0  # on a busy machine it begins empty
                    before = now
                    if same >= _SETTLED:
                        break
                self._drawn.put(app.export_screenshot(title=f"driftline {watch.recording.run}"))


async def _pause(app: ConsoleApp, pilot: Pilot[None]) -> None:
    """A tenth of a second for the app; less where it ends by an error, on which the pilot would wait for ever."""
    pause = asyncio.ensure_future(pilot.pause(0.1))
    while not pause.done() and app.is_running and not app.return_code:
        await asyncio.wait([pause], timeout=0.1)
    if not pause.done():
        pause.cancel()
        raise _EndedError
    await pause


class _EndedError(RuntimeError):
    """The app has ended by an error of its own, which it raises when it is left."""
