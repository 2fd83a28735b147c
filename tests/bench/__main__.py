"""`make bench`: every comparison, one after the other, in one run; prints ratios, fails where one is missed."""

from __future__ import annotations

import importlib
import subprocess
import sys

BENCHES = (
    "bench_emit",
    "bench_hub",
    "bench_export",
    "bench_query",
    "bench_names",
    "bench_open",
    "bench_chart",
    "bench_live",
    "bench_bytes",
    "bench_memory",
    "bench_diagnosis",
)


def main() -> int:
    """Run all benches, or those named on the command line; 1 where one misses what is wanted."""
    names = sys.argv[1:] or BENCHES
    if len(names) == 1:
        return int(importlib.import_module(f"tests.bench.{names[0]}").main())
    missed = []
    for name in names:
        print(f"{name}:", flush=True)
        # Each in a process of its own: what one has read and kept must not be in another's memory and collections.
        if subprocess.run([sys.executable, "-m", "tests.bench", name], check=False).returncode != 0:
            missed.append(name)
        print(flush=True)
    print(f"wanted figures missed: {', '.join(missed)}" if missed else "all wanted figures met")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
