"""Every screen over frames whose numbers are the odd ones, as a run of an older hub may hold them."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from console.settings.keys import TABS
from driftline.frames import Frame, FrameError, encode
from tests.tui.conftest import make_app, settle
from tests.tui.quick import tap, up_to_date
from tests.tui.synthetic import FakeSource, history
from tests.unit import odd_frames

APPS = 300 if os.environ.get("DRIFTLINE_FAULTS") == "full" else 3
FRAMES = 100


def packed(frame: Frame) -> bool:
    try:
        encode(frame)
    except FrameError:
        return False
    return True


async def looked_at(frames: list[Frame]) -> None:
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
def test_no_screen_falls_over_them() -> None:
    @settings(max_examples=APPS, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.lists(odd_frames.any_frame().filter(packed), min_size=FRAMES, max_size=FRAMES))
    def shown(frames: list[Frame]) -> None:
        asyncio.run(looked_at(frames))

    shown()
