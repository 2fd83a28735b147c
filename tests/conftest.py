"""Fixtures of more than one folder."""

from __future__ import annotations

import atexit
import gc
import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # xdist has no types

from tests.environment import HEAVY, WITHOUT_ENGINE
from tests.unit.hubs import Hub

# Textual believes these before it asks the terminal, and who runs tests in parallel sets them.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


# How long an example takes is the machine's affair, which other tests share.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

ROOT = Path(__file__).parents[1]


def heavy_import(error: BaseException | None) -> str:
    """Name of the package of engine or trainer whose import has failed, or ""."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in HEAVY:
            return str(error.name).partition(".")[0]
        error = error.__cause__ or error.__context__
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Skip a file that imports what engine and trainer stand on, where none of that is installed."""
    report = yield
    if WITHOUT_ENGINE and report.failed:
        missing = [name for name in HEAVY if f"No module named '{name}" in str(report.longrepr)]
        if missing:
            report.outcome = "skipped"
            report.longrepr = (str(collector.path), 0, f"Skipped: needs {missing[0]}, which is not installed here")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """The same for a test that imports it by itself."""
    report = yield
    if WITHOUT_ENGINE and report.failed and call.excinfo is not None and (name := heavy_import(call.excinfo.value)):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: needs {name}, which is not installed here")
    return report


SHARING = ("tests/e2e/one_engine/", "tests/e2e/two_engines/")
"""Folders whose files share engines."""
ENGINES = (
    "tests/e2e/test_compat.py",
    "tests/e2e/two_engines/test_shadow.py",
    "tests/e2e/two_engines/test_engine_life.py",
    "tests/e2e/test_join.py",
    "tests/e2e/test_join_trl.py",
    "tests/e2e/one_engine/test_engine_actor.py",
    "tests/e2e/one_engine/test_engine_pool.py",
    "tests/e2e/test_chaos.py",
    "tests/e2e/test_interrupt.py",
    "tests/e2e/test_versions.py",
    "tests/e2e/test_migrate.py",
    "tests/e2e/test_your_trainer.py",
    "tests/e2e/test_another_account.py",
    "tests/e2e/test_bridge_engine.py",
    "tests/e2e/test_engine_start.py",
    "tests/e2e/test_facts_table.py",
    "tests/e2e/test_active_round.py",
    "tests/e2e/test_run_trainer.py",
    "tests/e2e/test_parity.py",
    "tests/e2e/test_align.py",
    "tests/faults/test_engines.py",
    "tests/faults/test_matrix_engines.py",
    "tests/faults/test_overhead.py",
    "tests/adapters/test_in_ray_workers.py",
)
"""Files with tests on real engines, in the order in which they run: the longest first, and what shares an engine
together. Where workers share all tests, one of them runs these, from its start on."""
SLOW = (
    "tests/e2e/",
    "tests/faults/",
    "tests/tui/test_every_key.py",
    "tests/tui/test_hangup.py",
    "tests/tui/test_picture.py",
    "tests/tui/test_pty.py",
    "tests/tui/test_pty_runs.py",
    "tests/unit/test_audit.py",
    "tests/unit/test_effect_intervals.py",
    "tests/unit/test_ending.py",
    "tests/unit/test_hub_deaths.py",
    "tests/unit/test_hub_keep.py",
    "tests/unit/test_journal_lost.py",
    "tests/unit/test_launch.py",
    "tests/unit/test_parity_rates.py",
    "tests/unit/test_sentinels_stats.py",
    "tests/unit/test_stats_parity.py",
    "tests/unit/test_wire_chaos.py",
)
"""Folders and files of `slow` tests: processes, terminals and faults that are waited for, keys times screens, rates."""
LARGER = ("120x40", "200x60")
"""Pictures of these sizes are `slow` too: they draw more cells by the same code, and 80x24 stays in the quick tests."""


_ALL_ENGINE = re.compile(r"^pytestmark = \[?\s*pytest\.mark\.engine\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where tests with an engine are left out, files of nothing else are not imported either, worker by worker."""
    if not str(config.getoption("markexpr")).startswith("not engine") or collection_path.suffix != ".py":
        return None
    if collection_path.relative_to(ROOT).as_posix() not in ENGINES:
        return None
    return True if _ALL_ENGINE.search(collection_path.read_text(encoding="utf-8")) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what `make test-quick` leaves out; a single test outside of these has the marker itself."""
    for item in items:
        name = item.path.relative_to(ROOT).as_posix()
        if item.get_closest_marker("engine") and name not in ENGINES:
            raise pytest.UsageError(
                f"{item.nodeid} needs an engine: its file must stand in ENGINES of tests/conftest.py"
            )
        picture = "screen_compare" in getattr(item, "fixturenames", ())
        if name.startswith(SLOW) or (picture and any(size in item.name for size in LARGER)):
            item.add_marker(pytest.mark.slow)
    # Files are given out in this order (--no-loadscope-reorder): what takes long must not be what is left at the end.
    items.sort(key=lambda item: _turn(item.path.relative_to(ROOT).as_posix()))


def pytest_collection_finish() -> None:
    """All that was imported and collected stays until the end: no collection of garbage has to go through it again."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # the interpreter's own end does


def _turn(name: str) -> tuple[int, int]:
    if name in ENGINES:
        return 0, ENGINES.index(name)
    return (1 if name.startswith(SLOW) else 2), 0


class EngineScheduling(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """A file is the work of one worker. So are all files with engines, but where nothing else is run.

    Files that share an engine are always given to the same worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        name: str = super()._split_scope(nodeid)
        if name not in ENGINES:
            return name
        if not str(self.config.getoption("markexpr")).startswith("engine"):
            return "engines"
        return next((folder for folder in SHARING if name.startswith(folder)), name)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> EngineScheduling | None:
    return EngineScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub process of the test's own, ended with it."""
    hub = Hub(tmp_path)
    hub.start()
    yield hub
    hub.end()
