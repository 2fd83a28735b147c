"""One chart and nine charts at 4 Hz on 200x60, against textual-plotext and textual-plot: CPU, ticks done, lag.

Each chart has two series; at each tick every series gets a point and every chart shows it. A tick is done when the
terminal has been sent what it changed; one that is due while the one before is not done is left out. What is compared
is the CPU of a tick: the whole process with everything in it, numpy, Textual's compositor, and the bytes made for the
terminal. All have the same points and braille; each is used as its documentation says. Ours sends what changed,
which is what an operator pays for; `bench_chart` compares redraws with nothing kept.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

import numpy as np
from textual.app import App, ComposeResult
from textual.widget import Widget

from console.store.series.series import Series
from console.tui.chart.data import ChartData, Line
from console.tui.chart.line_chart import ChartView, LineChart
from console.tui.paint.theme import Ink
from tests.bench.terminal import Measured, drive

SIZE = (200, 60)
RATE, TICKS = 4.0, 32
POINTS = 10_000
MANY = 100_000
WANTED_RATIO = 100.0
WANTED_LOAD = 0.20
WANTED_LAG = 0.050

Tick = Callable[[], None]
INKS = (Ink.LINE, Ink.SECOND)


def noise(points: int, chart: int) -> list[np.ndarray]:
    """Two jagged series, as metrics of RL are, with room for all ticks of both rounds."""
    random = np.random.default_rng(chart)
    return [np.abs(1.0 + i + 0.5 * random.normal(size=points + 2 * TICKS + 8)) for i in range(2)]


def ours(points: int, charts: int) -> tuple[Sequence[Widget], Tick]:
    """Our chart, fed as the live screen feeds it."""
    values = [noise(points, chart) for chart in range(charts)]
    series = [[Series.from_arrays(np.arange(points), part[:points].copy()) for part in pair] for pair in values]
    widgets = [LineChart(ChartData("bench")) for _ in range(charts)]
    n = points

    def tick() -> None:
        nonlocal n
        for widget, pair, parts in zip(widgets, series, values, strict=True):
            for one, part in zip(pair, parts, strict=True):
                one.put(n, float(part[n]))
            lines = tuple(Line(one.points(), ink) for one, ink in zip(pair, INKS, strict=True))
            widget.show(ChartData("bench", lines=lines), ChartView(), (0, n))
        n += 1

    return widgets, tick


def plotext(points: int, charts: int) -> tuple[Sequence[Widget], Tick]:
    """textual-plotext, with braille."""
    from textual_plotext import PlotextPlot

    widgets = [PlotextPlot() for _ in range(charts)]
    lists = [[part.tolist() for part in noise(points, chart)] for chart in range(charts)]
    n = points

    def tick() -> None:
        nonlocal n
        n += 1
        x = list(range(n))
        for widget, pair in zip(widgets, lists, strict=True):
            widget.plt.clear_data()
            for part in pair:
                widget.plt.plot(x, part[:n], marker="braille")
            widget.refresh()

    return widgets, tick


def plot(points: int, charts: int) -> tuple[Sequence[Widget], Tick]:
    """textual-plot, with braille."""
    from textual_hires_canvas import HiResMode
    from textual_plot import PlotWidget

    widgets = [PlotWidget() for _ in range(charts)]
    values = [noise(points, chart) for chart in range(charts)]
    n = points

    def tick() -> None:
        nonlocal n
        n += 1
        x = np.arange(n, dtype=float)
        for widget, pair in zip(widgets, values, strict=True):
            widget.clear()
            for part, style in zip(pair, ("cyan", "magenta"), strict=True):
                widget.plot(x, part[:n], line_style=style, hires_mode=HiResMode.BRAILLE)

    return widgets, tick


MAKERS = {"driftline": ours, "textual-plotext": plotext, "textual-plot": plot}


class Grid(App[None]):
    """The charts in rows of one or three."""

    ENABLE_COMMAND_PALETTE = False
    CSS = "Screen { layout: grid; } LineChart, PlotextPlot, PlotWidget { width: 1fr; height: 1fr; }"

    def __init__(self, charts: Sequence[Widget]) -> None:
        super().__init__()
        self.charts = charts

    def compose(self) -> ComposeResult:
        yield from self.charts

    def on_mount(self) -> None:
        side = round(len(self.charts) ** 0.5)
        self.screen.styles.grid_size_columns = self.screen.styles.grid_size_rows = side


def measure(name: str, points: int, charts: int) -> Measured:
    """One library with so many charts of so many points."""
    widgets, tick = MAKERS[name](points, charts)
    measured = asyncio.run(drive(Grid(widgets), tick, size=SIZE, rate=RATE, ticks=TICKS))
    p50, p99 = (1000 * float(np.quantile(measured.lags, q)) for q in (0.5, 0.99))
    print(
        f"  {charts} x {points:>9,} {name:<16} {measured.ticks:>2} of {measured.due} ticks  "
        f"{measured.load:6.1%} of a core  {1000 * measured.cpu_per_tick:9.2f} ms CPU a tick  "
        f"lag p50 {p50:.1f} p99 {p99:.0f} max {1000 * measured.lags.max():.0f} ms",
        flush=True,
    )
    return measured


def main() -> int:
    """Print all figures; 0 when every one is as wanted."""
    good = True
    print(f"  load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: others' work shows in ticks and lag")
    for charts in (1, 9):
        mine = measure("driftline", POINTS, charts)
        others = [measure(name, POINTS, charts) for name in MAKERS if name != "driftline"]
        ratio = min(other.cpu_per_tick for other in others) / mine.cpu_per_tick
        print(f"{charts} chart(s): {ratio:.0f} times less CPU a tick than the faster (wanted: {WANTED_RATIO:.0f})")
        good &= ratio >= WANTED_RATIO and mine.ticks == mine.due and mine.load < WANTED_LOAD
    for points in (MANY, 10 * MANY):
        mine = measure("driftline", points, 9)
        lag = float(np.quantile(mine.lags, 0.99))
        print(f"9 x {points:,}: lag p99 {1000 * lag:.0f} ms (wanted: below {1000 * WANTED_LAG:.0f})")
        good &= lag < WANTED_LAG and mine.ticks == mine.due and mine.load < WANTED_LOAD
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
