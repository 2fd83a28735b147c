"""Every screen over frames whose numbers are the odd ones, as a run of an older hub may hold them."""

from __future__ import annotations

import asyncio

import pytest

from console.settings.keys import TABS
from driftline.frames import Frame
from tests.faults.scale import FULL
from tests.tui.conftest import make_app, settle
from tests.tui.quick import tap, up_to_date
from tests.tui.synthetic import FakeSource, history
from tests.unit import odd_frames

APPS, FRAMES = (100, 1000) if FULL else (3, 100)


async def looked_at(frames: tuple[Frame, ...]) -> None:
    source = FakeSource()
    source.feed(history(20))
    app = make_app(source)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        source.feed(frames[::2])
        for tab in TABS:
            await tap(pilot, tab.key)
            await up_to_date(pilot)
        source.feed(frames[1::2])
        for tab in TABS:
            await tap(pilot, tab.key)
            await up_to_date(pilot)
            for key in ("down", "enter", "escape"):
                await tap(pilot, key)
    assert app.return_code in (None, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("error::RuntimeWarning")  # it would be written over the screen
@pytest.mark.timeout(1800 if FULL else 300)
def test_no_screen_falls_over_them() -> None:
    frames = odd_frames.drawn(APPS * FRAMES)
    for first in range(0, len(frames), FRAMES):
        asyncio.run(looked_at(frames[first : first + FRAMES]))
