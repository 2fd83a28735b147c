"""A terminal of any size that counts what is sent to it, and apps that are run on it for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from textual.app import App
from textual.drivers.headless_driver import HeadlessDriver

LAG_EVERY = 0.010


class CountingDriver(HeadlessDriver):
    """Takes everything that a real terminal would be sent, and counts its bytes."""

    sent = 0

    @property
    def is_headless(self) -> bool:
        # The app must write as to a terminal; a headless one is not written to at all.
        return False

    def write(self, data: str) -> None:
        CountingDriver.sent += len(data.encode("utf-8"))


@dataclass(frozen=True)
class Measured:
    """One app at one rate: ticks done of those due, all updates that it made for them (one may have come too late),
    CPU seconds, lags of the event loop in seconds, bytes sent."""

    ticks: int
    due: int
    updates: int
    cpu: float
    seconds: float
    lags: np.ndarray
    sent: int

    @property
    def cpu_per_tick(self) -> float:
        return self.cpu / self.updates

    @property
    def load(self) -> float:
        """Part of one core."""
        return self.cpu / self.seconds


async def drive(
    app: App[None], tick: Callable[[], None], *, size: tuple[int, int], rate: float, ticks: int
) -> Measured:
    """Run `app` on a terminal of `size` and call `tick` at `rate` a second; one is done once it is on the screen.

    A tick that is due while the one before is not on the screen is left out, as a timer of Textual's would. Two rounds
    of `ticks`: who looks a hundred times a second how late the event loop is takes more CPU than a cheap tick, so lags
    are of the second round and all else is of the first.
    """
    running = await started(app, size)
    for _ in range(2):
        await _once(app, tick)  # fills caches of styles and code
    measured = await _round(app, tick, rate=rate, ticks=ticks)
    lags: list[float] = []
    watching = asyncio.create_task(_watch(lags))
    await _round(app, tick, rate=rate, ticks=ticks)
    watching.cancel()
    app.exit()
    await running
    return replace(measured, lags=np.array(lags))


async def _round(app: App[None], tick: Callable[[], None], *, rate: float, ticks: int) -> Measured:
    period = 1.0 / rate
    CountingDriver.sent = done = updates = 0
    begin, cpu = time.perf_counter(), time.process_time()
    end = begin + ticks * period
    while time.perf_counter() < end:
        await _once(app, tick)
        finished = time.perf_counter()
        done += finished <= end
        updates += 1
        late = int((finished - begin) / period)
        await asyncio.sleep(max(begin + (late + 1) * period - finished, 0))
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begin
    return Measured(done, ticks, updates, cpu, seconds, np.empty(0), CountingDriver.sent)


async def started(app: App[None], size: tuple[int, int]) -> asyncio.Task[None]:
    """`app` on a terminal of `size`, once it has drawn itself; the task ends when the app does."""
    ready = asyncio.Event()
    app.driver_class = CountingDriver
    running = asyncio.create_task(app.run_async(size=size, mouse=False))
    while not app.is_running or not app.screen_stack:
        await asyncio.sleep(0.01)
    app.call_after_refresh(ready.set)
    await ready.wait()
    await asyncio.sleep(0.5)
    return running


async def painted(app: App[None]) -> None:
    """Wait until all that was asked to be redrawn has been sent."""
    done = asyncio.Event()
    app.call_after_refresh(done.set)
    await done.wait()


async def _once(app: App[None], tick: Callable[[], None]) -> None:
    tick()
    await painted(app)


async def _watch(lags: list[float]) -> None:
    while True:
        begin = time.perf_counter()
        await asyncio.sleep(LAG_EVERY)
        lags.append(max(time.perf_counter() - begin - LAG_EVERY, 0.0))
