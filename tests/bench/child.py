"""Snippets that are run in processes of their own: seconds, rows and the largest memory that each one had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

RUNS = 3

HEAD = """
import json, resource, sys, time
from pathlib import Path
def now():
    return time.perf_counter(), time.process_time()
def since(start):
    return [after - before for before, after in zip(start, now())]
def tell(seconds, rows):
    # ru_maxrss of a new process begins with what its parent had; the high-water mark of its own memory does not.
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
    print(json.dumps([*seconds, int(rows), peak]))
"""


class Cost(NamedTuple):
    """Best seconds on the clock and of the processors, rows, and largest peak in bytes, of RUNS runs."""

    wall: float
    cpu: float
    rows: int
    peak: float


def measure(code: str, *args: Path | str, python: str = sys.executable, runs: int = RUNS) -> Cost:
    """Run a snippet, which begins where HEAD ends, `runs` times."""
    measured = []
    for _ in range(runs):
        done = subprocess.run(
            [python, "-c", HEAD + code, *map(str, args)], capture_output=True, text=True, timeout=900, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        measured.append(json.loads(done.stdout.splitlines()[-1]))
    return Cost(min(t[0] for t in measured), min(t[1] for t in measured), measured[0][2], max(t[3] for t in measured))
