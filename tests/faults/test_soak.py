"""Fault 27: a soak. At full scale `make faults` runs a quarter of an hour of it beside the other faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.faults.scale import FULL, dice


@pytest.mark.skipif(FULL, reason="at full scale `make faults` runs a long one beside the other faults")
def test_f27_a_short_soak_loses_nothing_and_grows_nowhere() -> None:
    options = ["--minutes", "0.15", "--every", "1.5", "--seed", str(dice("f27").randrange(2**32))]
    command = [sys.executable, "-m", "tests.faults.soak", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
