"""The long soak runs beside the other faults, which together take about as long, and not beside what is timed in pairs.

Order at full scale: everything else, the wait for the soak, the cost of telemetry (26).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Case, Table
from tests.faults.scale import FULL, dice

_LAST = ("test_soak.py", "test_overhead.py")
MINUTES = 15.0
"""Of the soak beside the others; an hour of it is a command of its own, see README.md."""
EVERY = 20.0
"""Seconds between its faults: each of 31 kinds comes within these minutes."""
_SOAK = pytest.StashKey[tuple[Path, "subprocess.Popen[bytes]"]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the soak's wait, then what must be alone, at the end."""
    here = Path(__file__).parent
    if FULL:
        items.sort(key=lambda item: _LAST.index(item.path.name) + 1 if item.path.name in _LAST else 0)
        if any(item.path == here / "test_soak.py" for item in items) and not config.option.collectonly:
            log = config._tmp_path_factory.mktemp("soak") / "log"  # type: ignore[attr-defined]
            seed = str(dice("f27").randrange(2**32))
            options = ["--minutes", str(MINUTES), "--every", str(EVERY), "--all-kinds", "--seed", seed]
            command = [sys.executable, "-m", "tests.faults.soak", *options]
            with log.open("w") as out:  # a pipe would be full before anybody reads it
                config.stash[_SOAK] = log, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End a soak that nobody waited for."""
    _, process = config.stash.get(_SOAK, (None, None))
    if process is not None and process.poll() is None:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    print(f"\n{made}")


@pytest.fixture
def case(tmp_path: Path, table: Table) -> Iterator[Callable[..., Case]]:
    made: list[Case] = []

    def make(config: str, **options: object) -> Case:
        made.append(Case(tmp_path / f"{len(made)}", table, config, **options))  # type: ignore[arg-type]  # passed on
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def long_soak(pytestconfig: pytest.Config) -> tuple[Path, subprocess.Popen[bytes]]:
    """The log and the process of the soak that goes on beside the other tests."""
    return pytestconfig.stash[_SOAK]
