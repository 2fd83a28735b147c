"""No false alarm over healthy simulated runs of a small transformer, of seeds that nothing was counted from.

Bounded; `python -m tests.stats diagnosis` has more steps and the table of confusions (tests/stats/diagnosis.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("torch", reason="the simulated runs are computed with torch")

from tests.diagnosis.corpus import STEPS
from tests.stats.diagnosis import SEED, healthy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads of so small a model wait for each other, twenty times as long where other tests run beside."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_no_false_alarm_over_healthy_steps() -> None:
    steps, alarms = healthy(4 * STEPS, first=SEED + 500)
    assert (steps, alarms) == (4 * STEPS, 0)
