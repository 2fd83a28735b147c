"""Fault 27: a soak. At full scale it runs beside the other faults (see conftest.py) and is only waited for here."""

from __future__ import annotations

import subprocess

import pytest

from tests.faults.scale import FULL, dice
from tests.faults.soak import SECONDS, soak
from tests.unit.hubs import Hub


@pytest.mark.skipif(FULL, reason="at full scale there is one beside the other faults, below")
def test_f27_a_short_soak_loses_nothing_and_grows_nowhere(hub: Hub) -> None:
    print(soak(hub, dice("f27")))


@pytest.mark.skipif(not FULL, reason="fifteen minutes: `make faults`")
@pytest.mark.timeout(int(SECONDS) + 300)
def test_f27_a_soak_under_faults_loses_nothing_and_grows_nowhere(long_soak: subprocess.Popen[str]) -> None:
    out, _ = long_soak.communicate()
    print(out)
    assert long_soak.returncode == 0, out
