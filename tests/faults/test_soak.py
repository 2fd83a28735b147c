"""Fault 27: a soak. At full scale it runs beside the other faults (see conftest.py) and is only waited for here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.scale import FULL, dice


@pytest.mark.skipif(FULL, reason="at full scale there is one beside the other faults, below")
def test_f27_a_short_soak_loses_nothing_and_grows_nowhere() -> None:
    options = ["--minutes", "0.15", "--every", "1.5", "--seed", str(dice("f27").randrange(2**32))]
    command = [sys.executable, "-m", "tests.faults.soak", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280)
    print(done.stdout)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not FULL, reason="fifteen minutes: `make faults`")
@pytest.mark.timeout(1500)
def test_f27_a_soak_under_faults_loses_nothing_and_grows_nowhere(
    long_soak: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    log, process = long_soak
    code = process.wait()
    print(log.read_text())
    assert code == 0, log.read_text()
