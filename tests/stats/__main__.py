"""`make stats`: every table of `tests/stats`, or those of the modules named on the command line.

A module of this package with a function `tables() -> Iterable[str]` has tables; modules run in the order of their
names, and print their seeds themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import time

from tests import stats


def main(names: list[str]) -> int:
    """Print the tables; 2 for a name that has none."""
    modules = [importlib.import_module(f"{stats.__name__}.{name}") for name in sorted(_names())]
    found = {module.__name__.rpartition(".")[2]: module for module in modules if hasattr(module, "tables")}
    if unknown := [name for name in names if name not in found]:
        print(f"no tables: {', '.join(unknown)}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    for name in names or found:
        began = time.monotonic()
        for table in found[name].tables():
            print(table, end="\n\n", flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s", end="\n\n", flush=True)
    return 0


def _names() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(stats.__path__) if module.name != "__main__"]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
