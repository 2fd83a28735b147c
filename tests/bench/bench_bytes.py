"""Bytes to the terminal a frame at 140x40: the whole console, one step of the run a frame, against a full refresh.

"sliding" follows the newest quarter of a run over two of its moves, so the redraws of all that moved are in it; "fixed"
shows the whole run while its axes stand. Header, engines and the age of the feed change at every frame as they
do on a live run. A full refresh is what Textual sends for a screen that was asked to repaint, of the same frames.
"""

from __future__ import annotations

import asyncio

import msgspec

from console.connect.source import Link
from console.tui.app import ConsoleApp
from tests.bench.terminal import CountingDriver, painted, started
from tests.tui.synthetic import FakeSource, engines, history, metrics, run_state

SIZE = (140, 40)
HISTORY = 1010
FRAMES = 130
WANTED = {"sliding": 10.0, "fixed": 30.0}


class Console(ConsoleApp):
    """The console, but drawn when the bench says and not at a rate."""

    def on_tick(self) -> None:
        """Leave what has come for `frame`."""

    async def frame(self, step: int) -> int:
        """One more step; returns the bytes that its frame took."""
        source = self.source
        assert isinstance(source, FakeSource)
        source.state = Link(True, 0.1 + 0.1 * (step % 4))
        states = [
            msgspec.structs.replace(state, running=12 + (step + i) % 7, tokens_per_s=900.0 + (step * 37 + i) % 90)
            for i, state in enumerate(engines())
        ]
        source.feed([metrics(step), run_state(step), *states])
        await self.caught_up()
        before = CountingDriver.sent
        self.refresh_view()
        await painted(self)
        return CountingDriver.sent - before

    async def caught_up(self) -> None:
        """Wait until all that was fed is in the model."""
        assert isinstance(self.source, FakeSource)
        while self.model.head < self.source.head:
            await asyncio.sleep(0.002)


async def measure(mode: str) -> tuple[float, float]:
    """Mean bytes of a frame and of a full refresh of it."""
    source = FakeSource()
    source.feed(history(HISTORY))
    app = Console(source, fps=200.0, clock=lambda: 0.0, sixteen=False)
    running = await started(app, SIZE)
    await app.caught_up()
    app.refresh_view()
    if mode == "sliding":
        app.live.action_follow()
    await painted(app)
    sent = full = 0
    for step in range(HISTORY + 1, HISTORY + 1 + FRAMES):
        sent += await app.frame(step)
        if step % 10 == 0:
            before = CountingDriver.sent
            app.screen.refresh()
            await painted(app)
            full += CountingDriver.sent - before
    app.exit()
    await running
    return sent / FRAMES, full / (FRAMES / 10)


def main() -> int:
    """Print bytes and ratios; 0 when both are as wanted."""
    good = True
    for mode, wanted in WANTED.items():
        sent, full = asyncio.run(measure(mode))
        print(
            f"{mode}: {sent:.0f} bytes a frame, {4 * sent / 1024:.1f} KiB/s at 4 Hz; a full refresh {full / 1024:.1f} "
            f"KiB, {full / sent:.0f} times as much (wanted: {wanted:.0f})"
        )
        good &= full / sent >= wanted
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
