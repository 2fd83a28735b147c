"""What joining costs a process of vLLM's in imports, beyond what it has imported by itself.

Each figure is the processor time of a fresh interpreter between marks: what is there before; then driftline and the
plugin's entry point without a run to join; then all that a process imports which does join: its probe, the hub's wire,
the commands. Before is msgspec, zmq and numpy alone, and, where vLLM is installed, its own engine core; of the latter
only the cost in a process of vLLM's is what is promised. Medians.

    .venv/bin/python -m tests.bench bench_import
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
ROUNDS: Final = int(os.environ.get("ROUNDS", "15"))
VLLM_ROUNDS: Final = max(3, ROUNDS // 5)
WANTED_S: Final = 0.050
BARE: Final = "msgspec, zmq, numpy"
CORE: Final = "vllm.v1.engine.core, vllm.v1.worker.worker_base"
HEAVY: Final = frozenset({"torch", "polars", "pyarrow", "textual", "ray", "vllm"})
SCRIPT: Final = """
import sys, time
marks = [time.process_time()]
import {before}
marks.append(time.process_time())
known = set(sys.modules)
import driftline, engine.plugin
engine.plugin.register()
marks.append(time.process_time())
from driftline import keys, rundir
from engine.plugin import core, environment, joining, member, report, versions, worker
marks.append(time.process_time())
print()
print(*(after - before for before, after in zip(marks, marks[1:])), *sorted(set(sys.modules) - known))
"""


class Cost(NamedTuple):
    """Seconds of processor time: of what was there before, of the entry point without a run, and of that and joining;

    and the heavy packages that these two have imported.
    """

    before: float
    inert: float
    joining: float
    heavy: tuple[str, ...]


def measure(before: str, rounds: int, typical: Callable[[Sequence[float]], float] = statistics.median) -> Cost:
    """What is typical of so many interpreters that have imported `before`."""
    # As installed: compiled once, by the first one, not anew in each process.
    left_out = ("DRIFTLINE_", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
    env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    env |= {"PYTHONPATH": str(ROOT)}
    times: list[list[float]] = []
    modules: set[str] = set()
    for _ in range(rounds + 1):  # the first one compiles, and fills the disk's cache
        script = SCRIPT.format(before=before)
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        words = done.stdout.splitlines()[-1].split()
        there, inert, joining = map(float, words[:3])
        times.append([there, inert, inert + joining])
        modules |= {word.partition(".")[0] for word in words[3:]}
    there, inert, joining = (typical(column) for column in zip(*times[1:], strict=True))
    return Cost(there, inert, joining, tuple(sorted(HEAVY & modules)))


def main() -> int:
    """Run it; 0 when what is promised holds."""
    bare = measure(BARE, ROUNDS)
    print(f"  {ROUNDS} interpreters with {BARE} ({bare.before * 1e3:.0f} ms):")
    print(f"    entry point without a run {bare.inert * 1e3:.1f} ms, {bare.inert / bare.before:.2f} of that")
    print(f"    joining {bare.joining * 1e3:.1f} ms, {bare.joining / bare.before:.2f} of that")
    costs = [bare]
    if importlib.util.find_spec("vllm") is not None:
        inside = measure(CORE, VLLM_ROUNDS)
        costs.append(inside)
        print(f"  {VLLM_ROUNDS} interpreters with vLLM's engine core ({inside.before:.1f} s):")
        print(f"    entry point without a run {inside.inert * 1e3:.1f} ms, joining {inside.joining * 1e3:.1f} ms")
    else:
        print("  the cost in a process of vLLM's is not available here: vLLM is not installed")
    heavy = sorted({name for cost in costs for name in cost.heavy})
    print(f"  wanted: at most {WANTED_S * 1e3:.0f} ms in a process of vLLM's, and nothing heavy: {heavy or 'none'}")
    return 0 if costs[-1].joining <= WANTED_S and not heavy else 1


if __name__ == "__main__":
    raise SystemExit(main())
