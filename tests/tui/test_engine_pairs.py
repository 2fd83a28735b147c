"""Screen 2: engine against engine, where shadow scoring compares them."""

from __future__ import annotations

import math

import pytest

from console.tui.screens.tokens.panes import EnginePairsPane
from driftline.frames import Metrics
from tests.tui.conftest import Running, screen_text, settle
from tests.tui.synthetic import START, FakeSource, history, token_frame

NAMES = ("abs_diff_mean", "abs_diff_p99", "tokens")


def shadow_step(step: int, pairs: dict[tuple[str, str], tuple[float, float, float]]) -> Metrics:
    """The numbers of a step's shadow scoring, as `trainer.measure.shadow` names them."""
    whole = dict(zip(NAMES, next(iter(pairs.values())), strict=True))
    values = {f"shadow/{name}": value for name, value in whole.items()}
    if len(pairs) > 1:
        for (sampled, scored), numbers in pairs.items():
            values |= {f"shadow/{sampled}-{scored}/{n}": v for n, v in zip(NAMES, numbers, strict=True)}
    labels = {"shadow/abs_diff_mean": ", ".join(f"{one} by {other}" for one, other in pairs)}
    return Metrics(step, 1, START + step, {**values, "shadow/skipped": 3.0, "shadow/share": 0.25}, labels)


def source(*steps: Metrics) -> FakeSource:
    made = FakeSource()
    made.feed(history(20))
    made.feed([token_frame(step) for step in range(1, 6)])
    made.feed(steps)
    return made


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_each_pair_has_a_line_the_one_that_is_furthest_apart_first(running: Running, size: tuple[int, int]):
    two = {("engine-0", "engine-1"): (2e-6, 7e-6, 128.0), ("engine-1", "engine-0"): (0.36, 1.9, 96.0)}
    steps = [shadow_step(19, {pair: (0.02, 0.1, 64.0) for pair in two}), shadow_step(20, two)]
    async with running(source(*steps), size=size) as pilot:
        await pilot.press("2")
        await settle(pilot)
        shown = screen_text(pilot)
        assert "engine → engine: sampled → scored" in shown
        assert shown.index("engine-1 → engine-0") < shown.index("engine-0 → engine-1")
        assert "step 20, share .25, tokens skipped 3" in shown.replace("0.25", ".25")
        pane = pilot.app.screen.query_one(EnginePairsPane)
        worst = pane.pairs[0]
        assert (worst.mean, worst.p99, worst.tokens, worst.recent.tolist()) == (0.36, 1.9, 96.0, [0.02])
        assert pane.size.height == 4 - 2 * (not pane.framed)


async def test_one_pair_alone_has_the_names_of_the_whole(running: Running):
    async with running(source(shadow_step(20, {("engine-0", "engine-1"): (0.5, 2.0, 7.0)}))) as pilot:
        await pilot.press("2")
        await settle(pilot)
        assert "engine-0 → engine-1" in screen_text(pilot)
        (pair,) = pilot.app.screen.query_one(EnginePairsPane).pairs
        assert (pair.mean, pair.p99, pair.tokens) == (0.5, 2.0, 7.0)


@pytest.mark.parametrize(
    "labels",
    [{}, {"shadow/abs_diff_mean": "?"}, {"shadow/abs_diff_mean": "a by b by c, by"}, {"shadow/abs_diff_mean": ""}],
)
async def test_nothing_is_shown_where_nothing_is_compared(running: Running, labels: dict[str, str]):
    values = {"shadow/abs_diff_mean": math.nan, "shadow/share": 0.0}
    async with running(source(Metrics(20, 1, START + 20, values, labels))) as pilot:
        await pilot.press("2")
        await settle(pilot)
        assert not pilot.app.screen.query_one(EnginePairsPane).display
        assert "sampled → scored" not in screen_text(pilot)
