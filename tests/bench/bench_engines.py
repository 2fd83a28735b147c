"""What 256 engines cost the console beside 4: states taken in, and the live and the engines screen drawn with them.

Every engine reports twice a second, as engines do. A turn is one such half second: all states go into the model, and
the screen on show is drawn with them (`refresh_view`, everything up to the cells that changed). The two numbers of
engines take turns, so that a noisy machine hits them alike; medians are compared, and the share of the half second that
256 engines take is printed. Wanted: drawing takes less than 8 times as long for 64 times as many engines.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Iterator

import msgspec
from textual.pilot import Pilot

from console.tui.app import ConsoleApp
from driftline.frames import EngineState, Stamped, encode
from tests.tui import engine_runs
from tests.tui.conftest import make_app, settle
from tests.tui.synthetic import START

FEW, MANY = 4, 256
SIZE = (120, 40)
TURNS = 60
PERIOD = 0.5
WANTED = 8.0
SCREENS = {"live": "1", "engines": "6"}


def beats(count: int, turn: int) -> list[EngineState]:
    """One report of each engine, a little other than the last."""
    return [
        engine_runs.engine(
            number, time=START + 20 + turn * PERIOD, tokens_per_s=900.0 + 40 * ((number * 7 + turn * 3) % 11),
            kv_use=0.2 + 0.01 * ((number + turn) % 9), running=12 + (number + turn) % 5,
        )
        for number in range(count)
    ]  # fmt: skip


def stamped(states: list[EngineState], head: int) -> Iterator[Stamped]:
    for place, state in enumerate(states, 1):
        yield Stamped(head + place, state.time, state.engine, msgspec.Raw(encode(state)))


async def shown(stack: contextlib.AsyncExitStack, count: int, key: str) -> tuple[ConsoleApp, Pilot[None]]:
    """The console with so many engines, on a screen."""
    app = make_app(engine_runs.many(count), fps=0.01)
    pilot = await stack.enter_async_context(app.run_test(size=SIZE))
    await settle(pilot)
    await pilot.press(key)
    await settle(pilot)
    return app, pilot


async def turn(app: ConsoleApp, pilot: Pilot[None], count: int, number: int) -> tuple[float, float]:
    """Seconds of taking one report of each engine in, and of drawing."""
    frames = list(stamped(beats(count, number), app.model.head))
    began = time.perf_counter()
    with app.lock:
        for frame in frames:
            app.model.apply(frame)
    taken = time.perf_counter()
    app.refresh_view()
    drawn = time.perf_counter()
    await pilot.pause(0)
    return taken - began, drawn - taken


async def measure(key: str) -> dict[int, tuple[float, float]]:
    async with contextlib.AsyncExitStack() as stack:
        apps = {count: await shown(stack, count, key) for count in (FEW, MANY)}
        found: dict[int, list[tuple[float, float]]] = {FEW: [], MANY: []}
        for number in range(TURNS):
            for count, (app, pilot) in apps.items():
                found[count].append(await turn(app, pilot, count, number))
    return {
        count: (statistics.median(one for one, _ in times), statistics.median(one for _, one in times))
        for count, times in found.items()
    }


def main() -> int:
    missed = False
    for name, key in SCREENS.items():
        found = asyncio.run(measure(key))
        taking, drawing = (found[MANY][place] / found[FEW][place] for place in (0, 1))
        share = sum(found[MANY]) / PERIOD
        missed |= drawing >= WANTED
        print(
            f"{name}: {MANY} engines beside {FEW}: drawn in {drawing:.1f} times as long"
            f" ({found[FEW][1] * 1e3:.1f} and {found[MANY][1] * 1e3:.1f} ms), states taken in {taking:.0f} times as"
            f" long; {share:.1%} of a core at {1 / PERIOD:.0f} states a second"
        )
    print(f"wanted: drawn in less than {WANTED:.0f} times as long{': missed' if missed else ''}")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
