"""`make bench`: every comparison, one after the other, in one run; prints ratios, fails where one is missed."""

from __future__ import annotations

import importlib
import sys

BENCHES = (
    "bench_emit",
    "bench_hub",
    "bench_export",
    "bench_query",
    "bench_open",
    "bench_chart",
    "bench_live",
    "bench_bytes",
    "bench_memory",
)


def main() -> int:
    """Run all benches, or those named on the command line."""
    missed = []
    for name in sys.argv[1:] or BENCHES:
        print(f"{name}:", flush=True)
        if importlib.import_module(f"tests.bench.{name}").main() != 0:
            missed.append(name)
        print(flush=True)
    print(f"wanted figures missed: {', '.join(missed)}" if missed else "all wanted figures met")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
