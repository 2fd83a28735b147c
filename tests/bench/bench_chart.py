"""One full redraw of our chart against textual-plotext and textual-plot: 100x25 cells, two series of 10,000 points.

A full redraw is everything from the arrays to the strips that Textual's compositor takes, with nothing cached, each
widget mounted in a headless app. The three take turns, so that a noisy machine hits them alike; medians are compared.
Two kinds of series: a random walk, and the jagged noise that metrics of RL are like. That ours is allowed
to send only what changed is not part of this comparison.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable

import numpy as np
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from console.store.series.series import Series
from console.tui.chart.data import ChartData, Line
from console.tui.chart.line_chart import ChartView, LineChart
from console.tui.paint.theme import Ink

POINTS = 10_000
COLUMNS, ROWS = 100, 25
WANTED = 50.0
ROUNDS = 7
OURS_PER_ROUND = 20

Redraw = Callable[[], list[Strip]]


def series(kind: str) -> list[np.ndarray]:
    """Two series of a kind, the same in every run."""
    random = np.random.default_rng(0)
    noise = [random.normal(size=POINTS) for _ in range(2)]
    if kind == "walk":
        return [np.cumsum(values) for values in noise]
    return [np.abs(1.0 + i + 0.5 * values) for i, values in enumerate(noise)]


def check(name: str, strips: list[Strip]) -> None:
    """Strips must have come, with lines drawn on them."""
    drawn = sum(1 for strip in strips for char in strip.text if "\u2801" <= char <= "\u28ff")
    if len(strips) != ROWS or drawn < COLUMNS:
        raise SystemExit(f"bench: {name} gave {len(strips)} rows with {drawn} cells of braille")


def ours(values: list[np.ndarray]) -> tuple[LineChart, Redraw]:
    """Our chart."""
    steps = np.arange(len(values[0]), dtype=np.int64)
    inks = (Ink.LINE, Ink.SECOND)
    lines = tuple(Line(Series.from_arrays(steps, part).points(), ink) for part, ink in zip(values, inks, strict=True))
    data = ChartData("bench", lines=lines)
    chart = LineChart(data)

    def redraw() -> list[Strip]:
        chart._cells = None
        chart._seen = ()
        chart.show(data, ChartView(), (0, len(steps) - 1))
        return chart.render_lines(Region(0, 0, COLUMNS, ROWS))

    return chart, redraw


def plotext(values: list[np.ndarray]) -> tuple[Widget, Redraw]:
    """textual-plotext, with braille."""
    from textual_plotext import PlotextPlot

    widget = PlotextPlot()
    x = list(range(POINTS))
    lists = [part.tolist() for part in values]

    def redraw() -> list[Strip]:
        widget.plt.clear_data()
        for part in lists:
            widget.plt.plot(x, part, marker="braille")
        widget.refresh()
        return widget.render_lines(Region(0, 0, COLUMNS, ROWS))

    return widget, redraw


def plot(values: list[np.ndarray]) -> tuple[Widget, Redraw]:
    """textual-plot, with braille."""
    from textual_hires_canvas import Canvas, HiResMode
    from textual_plot import PlotWidget

    widget = PlotWidget()
    x = np.arange(POINTS, dtype=float)

    def redraw() -> list[Strip]:
        widget.clear()
        for part, style in zip(values, ("cyan", "magenta"), strict=True):
            widget.plot(x, part, line_style=style, hires_mode=HiResMode.BRAILLE)
        widget._needs_rerender = True
        widget.render()
        canvas = widget.query_one("#plot", Canvas)
        canvas.refresh()
        return canvas.render_lines(Region(0, 0, COLUMNS, ROWS))

    return widget, redraw


MAKERS = {"driftline": ours, "textual-plotext": plotext, "textual-plot": plot}


class Bench(App[None]):
    """The three charts over one another, each of the same size."""

    CSS = f"LineChart, PlotextPlot, PlotWidget {{ width: {COLUMNS}; height: {ROWS}; }}"

    def __init__(self, kind: str) -> None:
        super().__init__()
        values = series(kind)
        self.charts = {name: make(values) for name, make in MAKERS.items()}

    def compose(self) -> ComposeResult:
        for widget, _ in self.charts.values():
            yield widget


async def measure(kind: str) -> dict[str, float]:
    """Median seconds of a redraw of each chart."""
    app = Bench(kind)
    times: dict[str, list[float]] = {name: [] for name in MAKERS}
    async with app.run_test(size=(COLUMNS, ROWS * 3)) as pilot:
        await pilot.pause()
        for turn in range(ROUNDS + 1):
            for name, (_, redraw) in app.charts.items():
                for _ in range(OURS_PER_ROUND if name == "driftline" else 1):
                    begin = time.perf_counter()
                    strips = redraw()
                    seconds = time.perf_counter() - begin
                    # The first round fills caches of styles and code.
                    if turn:
                        times[name].append(seconds)
                    else:
                        check(name, strips)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    """Print medians and ratios for both kinds; 0 when every ratio is as wanted."""
    worst = float("inf")
    for kind in ("walk", "noise"):
        medians = asyncio.run(measure(kind))
        mine = medians["driftline"]
        for name, seconds in medians.items():
            ratio = "" if name == "driftline" else f"   {seconds / mine:6.0f} times ours"
            print(f"  {kind:<6} {name:<16} {1000 * seconds:9.2f} ms{ratio}")
        worst = min(worst, *(seconds / mine for name, seconds in medians.items() if name != "driftline"))
    print(f"redraw: {worst:.0f} times faster than the faster of the others (wanted: {WANTED:.0f})")
    return 0 if worst >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
