"""Memory of a console that holds 10^6 steps of 30 metrics and has drawn them: peak resident size of its own process.

Points go in as frames do, one step after the other; then the live charts are drawn with smoothing and log axes on, so
that pyramids and averages of all of them are in the figure, as are Python, numpy and Textual.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from console.tui.chart import from_model

STEPS = 1_000_000
METRICS = 30
WANTED_MB = 400


def child(steps: int) -> None:
    """Fill a model and draw it; prints peak bytes and seconds of filling and of one redraw of all charts."""
    import numpy as np

    import console.tui.app
    from console.store.model import RunModel
    from console.tui.chart.line_chart import paint_chart
    from console.tui.chart.view import ChartView
    from console.tui.paint.cells import Cells
    from console.tui.paint.glyphs import GLYPHS
    from driftline.catalog.metrics import METRICS as CATALOGUE

    assert console.tui.app.ConsoleApp is not None  # the screens' imports are part of what is measured
    names = [metric.name for metric in CATALOGUE][:METRICS]
    assert len(names) == METRICS
    assert {"policy/clip_fraction", "mismatch/abs_diff_mean", "reward/mean"} <= set(names)
    model = RunModel()
    random = np.random.default_rng(0)
    begin = time.perf_counter()
    for start in range(0, steps, 1000):
        for step, row in enumerate(np.abs(random.normal(size=(1000, METRICS))).tolist(), start):
            model.metrics.record(step, float(step), dict(zip(names, row, strict=True)))
    filled = time.perf_counter() - begin
    for log in (False, True):
        view = ChartView(weight=0.99, log=log)
        begin = time.perf_counter()
        for spec in from_model.LIVE_CHARTS:
            paint_chart(Cells(66, 20), from_model.chart(model, spec), view, from_model.extent(model), GLYPHS["braille"])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, filled, time.perf_counter() - begin)


def main() -> int:
    """Print the figure; 0 when it is as wanted."""
    command = [sys.executable, "-m", "tests.bench.bench_memory", "child", str(STEPS)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, filled, _ = (float(word) for word in result.stdout.split())
    rate = STEPS * METRICS / filled
    print(
        f"{STEPS:,} steps x {METRICS} metrics: {peak / 1e6:.0f} MB at the peak (wanted: below {WANTED_MB}), "
        f"of which {STEPS * METRICS * 8 / 1e6:.0f} MB are the values; {rate / 1e6:.2f} million points a second taken in"
    )
    return 0 if peak < WANTED_MB * 1e6 else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(int(sys.argv[2]))
        raise SystemExit(0)
    raise SystemExit(main())
