"""From the command line to the first paint: `driftline attach` against an interpreter that only imports Textual.

Both are new processes on a warm disk; attach is on a terminal of 120x40, before a hub with 200 steps recorded. First
words is the line that says what is being opened, first paint the first frame with the panes in it, first figures the
header with the newest step. Ratios of medians, in turns, because the machine is shared. Of both Python has kept the
bytecode, as it has after an installation, whatever the environment here says of that. In the project's environment:

    .venv/bin/python -m tests.bench bench_attach
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from driftline.catalog.metrics import METRICS
from driftline.frames import Metrics
from driftline.producer.probe import Probe
from tests.tui.test_pty import Terminal, environment
from tests.unit.hubs import Hub

TURNS: Final = 11
STEPS: Final = 200
WANTED: Final = 1.8
NAMES: Final = [metric.name for metric in METRICS][:30]


def compiled(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment with a folder for bytecode, which a first start fills."""
    kept = {name: value for name, value in environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(folder)}


def bare(environ: dict[str, str]) -> float:
    """Seconds of `python -c "import textual.app"`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import textual.app"], check=True, env=environ)
    return time.perf_counter() - begin


def attached(hub: Hub, environ: dict[str, str]) -> tuple[float, float, float]:
    """Seconds to the first words, the first paint and the first figures."""
    command = [sys.executable, "-m", "console.cli", "attach", str(hub.run.path)]
    begin = time.perf_counter()
    terminal = Terminal(command, environ, (120, 40))
    try:
        terminal.expect("opening")
        words = time.perf_counter() - begin
        terminal.expect("reward")
        painted = time.perf_counter() - begin
        terminal.expect(f"step {STEPS - 1}")
        figures = time.perf_counter() - begin
        terminal.press(b"q")
        terminal.wait()
    finally:
        terminal.close()
    return words, painted, figures


def main() -> int:
    """Run it; 0 when the wanted ratio is met."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as folder:
        hub = Hub(Path(folder))
        try:
            hub.start()
            probe = Probe("trainer", hub.run)
            for step in range(STEPS):
                probe.send(Metrics(step, step, float(step), dict.fromkeys(NAMES, step / STEPS)))
            if not probe.flush(30):
                raise SystemExit("bench: the hub did not take the steps")
            probe.close(1.0)
            bytecode = Path(folder) / "bytecode"
            plain = compiled(os.environ, bytecode)
            console = compiled(environment(hub.run.path.parent), bytecode)
            bare(plain), attached(hub, console)  # fills the caches, of the disk too
            imports, words, paints, figures = [], [], [], []
            for _ in range(TURNS):
                imports.append(bare(plain))
                said, painted, shown = attached(hub, console)
                words.append(said)
                paints.append(painted)
                figures.append(shown)
        finally:
            hub.end()
    base = statistics.median(imports)
    ratio = statistics.median(paints) / base
    for what, seconds in (("first words", words), ("first paint", paints), ("first figures", figures)):
        median = statistics.median(seconds)
        print(f"  {what}: {median * 1e3:.0f} ms, {median / base:.2f}x of importing textual.app ({base * 1e3:.0f} ms)")
    print(f"  wanted: first paint at most {WANTED}x")
    return 0 if ratio <= WANTED else 1
