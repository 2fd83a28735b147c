"""Real engines that several files share, because each start costs half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.trained_run import TrainedRun


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainedRun]:
    """Every fix on from the start. `test_facts_table` switches them; `test_run_trainer` ends the run and resumes it."""
    live = TrainedRun(tmp_path_factory.mktemp("runs"))
    yield live
    live.close()
